#include "config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "base/utf8.h"
#include "config/text.h"

namespace waymark::config {
namespace {

constexpr std::size_t kMaximumDepth = 32;
// Brackets that are open in the bare text, those in quotes included: yaml-cpp takes its time over more.
constexpr std::size_t kMaximumBrackets = 256;

Place place_of(const YAML::Mark& mark) { return mark.is_null() ? Place{} : Place{mark.line + 1, mark.column + 1}; }

Problem too_deep(Place place) {
  return {place, {}, "is nested deeper than " + std::to_string(kMaximumDepth) + " levels, and nothing in here is"};
}

// Ends the parse at the first thing that can't be gone on from.
struct Refused {
  Problem problem;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder() = default;

  [[nodiscard]] YamlNode take_root() { return std::move(root_); }
  // Where the last thing begins that came.
  [[nodiscard]] Place last() const noexcept { return last_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse_anchor(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(mark); }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    last_ = place_of(mark);
    if (anchor != YAML::NullAnchor) refuse_anchor(mark);
    put({.kind = YamlNode::Kind::null, .place = place_of(mark)});
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    // Quoted text comes with the tag "!", other text with "?" or none.
    const bool quoted = tag == "!";
    check(mark, quoted ? "" : tag, anchor);
    static constexpr std::string_view nulls[] = {"", "~", "null", "Null", "NULL"};
    const bool null = !quoted && std::find(std::begin(nulls), std::end(nulls), value) != std::end(nulls);
    put({.kind = null ? YamlNode::Kind::null : YamlNode::Kind::scalar, .place = place_of(mark), .quoted = quoted, .text = value});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open({.kind = YamlNode::Kind::list, .place = place_of(mark)});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open({.kind = YamlNode::Kind::map, .place = place_of(mark)});
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or map in the making, and the key that waits for its value.
  struct Open {
    YamlNode node;
    std::optional<YamlNode> key;
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, std::string what) {
    throw Refused{{place_of(mark), {}, std::move(what)}};
  }
  [[noreturn]] static void refuse_anchor(const YAML::Mark& mark) {
    refuse(mark, "anchors (&) and aliases (*) are not supported; write the value out, and put text that starts with & or * "
                 "in quotes");
  }
  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    last_ = place_of(mark);
    if (anchor != YAML::NullAnchor) refuse_anchor(mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      refuse(mark, "tags (!) are not supported; leave it out, and put text that starts with ! in quotes");
    }
    if (open_.size() >= kMaximumDepth) {
      throw Refused{too_deep(place_of(mark))};
    }
  }
  void open(YamlNode node) {
    if (!open_.empty() && open_.back().node.kind == YamlNode::Kind::map && !open_.back().key) {
      throw Refused{{node.place, {}, "a list or a map can't be a key; expected a word"}};
    }
    open_.push_back({std::move(node), std::nullopt});
  }
  void close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    put(std::move(node));
  }
  void put(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::list) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = std::move(node);
    } else {
      parent.node.keys.push_back(*std::move(parent.key));
      parent.node.items.push_back(std::move(node));
      parent.key.reset();
    }
  }

  YamlNode root_;
  Place last_{1, 1};
  std::vector<Open> open_;
};

// What yaml-cpp's message says that is no part of the text.
std::string spoken(const std::string& message) {
  if (message.starts_with("the referenced anchor")) {
    return "aliases (*) are not supported; put text that starts with * in quotes";
  }
  const auto text = message.find(": ");
  return "this is no YAML (" + message.substr(0, text) + "); see to the indentation and the quotes around here";
}

// What yaml-cpp finds at the end of the text was opened before it: where the last thing began is as near as can be told.
Problem never_closed(Place last, const std::string& message) {
  if (message.find("in scalar") == std::string::npos) return {last, {}, spoken(message)};
  return {last, {}, "quotes that are opened here, or behind it, are never closed; close them"};
}

// What can be told of the bytes, before anything is parsed.
std::optional<Problem> bad_bytes(std::string_view text) {
  if (text.size() > kMaximumFileBytes) {
    return Problem{{}, {}, "is larger than 1 MiB, which no configuration is"};
  }
  int line = 1;
  std::size_t line_start = 0;
  bool indentation = true;
  std::size_t brackets = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const Place here{line, static_cast<int>(i - line_start) + 1};
    if (c == '[' || c == '{') ++brackets;
    if ((c == ']' || c == '}') && brackets > 0) --brackets;
    if (brackets > kMaximumBrackets) return too_deep(here);
    if (c == '\n') {
      if (!valid_utf8(text.substr(line_start, i - line_start))) return Problem{{line, 1}, {}, "is not UTF-8; expected UTF-8 text"};
      ++line;
      line_start = i + 1;
      indentation = true;
    } else if (c == '\t' && indentation) {
      // A line of white space alone is nobody's indentation.
      const auto next = text.find_first_not_of(" \t\r", i);
      if (next != std::string_view::npos && text[next] != '\n' && text[next] != '#') {
        return Problem{here, {}, "a tab stands where the line is indented; write spaces"};
      }
      indentation = false;
    } else if ((static_cast<unsigned char>(c) < ' ' && c != '\t' && c != '\r') || c == '\x7f') {
      return Problem{here, {}, "a control character; expected text"};
    } else if (c != ' ') {
      indentation = false;
    }
  }
  if (!valid_utf8(text.substr(line_start))) return Problem{{line, 1}, {}, "is not UTF-8; expected UTF-8 text"};
  return std::nullopt;
}

}  // namespace

std::optional<YamlNode> parse_yaml(std::string_view text, std::vector<Problem>& problems) {
  if (auto problem = bad_bytes(text)) {
    problems.push_back(*std::move(problem));
    return std::nullopt;
  }
  TreeBuilder builder;
  // The mark of a document's end: without it, quotes that are never closed would be closed by the end of the text.
  std::istringstream stream(std::string(text) + "\n...\n");
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.take_root();
    TreeBuilder more;
    if (parser.HandleNextDocument(more)) {
      problems.push_back({more.take_root().place, {}, "a second document begins; a configuration is one"});
      return std::nullopt;
    }
    return root;
  } catch (const Refused& refused) {
    problems.push_back(refused.problem);
  } catch (const YAML::Exception& error) {
    const Place place = place_of(error.mark);
    const auto lines = std::count(text.begin(), text.end(), '\n') + (text.ends_with('\n') ? 0 : 1);
    problems.push_back(place.line > lines ? never_closed(builder.last(), error.msg) : Problem{place, {}, spoken(error.msg)});
  }
  return std::nullopt;
}

}  // namespace waymark::config
