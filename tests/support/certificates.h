// Certificates for tests, made by the openssl command in a folder that goes with the test.
//
// Hides: openssl's options.
// Threads: one at a time.
// Failure: std::runtime_error with what openssl said.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "support/command.h"

namespace waymark::testing {

class Certificates {
 public:
  struct Pair {
    std::string certificate;  // paths
    std::string key;
  };

  Certificates() {
    std::string name = (std::filesystem::temp_directory_path() / "waymark-certificates-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    folder_ = name;
  }
  ~Certificates() { std::filesystem::remove_all(folder_); }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }

  // An authority that signs others.
  Pair authority(const std::string& name) {
    const Pair made = pair(name);
    run({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name, "-days", "2",
         "-keyout", made.key, "-out", made.certificate});
    return made;
  }
  // Signed by `by`, for the names in `alternative` ("IP:127.0.0.1"). 0 days: it is over as soon as it is made.
  Pair signed_by(const Pair& by, const std::string& name, const std::string& alternative, int days = 2) {
    const Pair made = pair(name);
    const std::string request = path(name + ".csr");
    const std::string extension = path(name + ".ext");
    std::ofstream(extension) << "subjectAltName=" << alternative << "\n";
    run({"req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name, "-keyout", made.key,
         "-out", request});
    run({"x509", "-req", "-in", request, "-CA", by.certificate, "-CAkey", by.key, "-CAcreateserial", "-days", std::to_string(days),
         "-extfile", extension, "-out", made.certificate});
    return made;
  }

 private:
  [[nodiscard]] Pair pair(const std::string& name) const { return {path(name + ".pem"), path(name + ".key")}; }
  static void run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    const CommandResult result = run_command(arguments);
    if (result.exit_code != 0) throw std::runtime_error("openssl failed: " + result.output);
  }

  std::string folder_;
};

}  // namespace waymark::testing
