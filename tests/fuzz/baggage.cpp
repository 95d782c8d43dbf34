// A baggage header, as a stranger's request may carry it.
#include "fuzz/fuzz.h"
#include "waymark/propagation.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waymark;
  const std::string_view input = fuzz::text(data, size);
  const Baggage baggage = Baggage::parse(input);
  const std::string header = baggage.header();
  fuzz::check(header.size() <= 8192, "a header holds at most 8,192 bytes");
  fuzz::check(header.find_first_of("\r\n") == std::string::npos, "a header is one line");
  const Baggage again = Baggage::parse(header);
  fuzz::check(again.header() == header, "what was sent is read, and sent on as it is");
  for (const Baggage::Entry& entry : baggage.entries()) {
    fuzz::check(baggage.get(entry.name).has_value(), "every entry can be found by its name");
    fuzz::plant(entry.name.size() == 1 && entry.name > "m" && !entry.metadata.empty(), input);
  }
  return 0;
}
