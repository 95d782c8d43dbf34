// Attribute values: what a caller hands to a span, an event, a link or a log record.
//
// Value and Attributes are views: they own nothing and are read before the call that takes them returns, so
// writing {{"bands", 4}, {"scene", id}} in the call allocates nothing. AnyValue owns what it holds; readers of
// finished telemetry (reader.h, hooks) give it out.
//
// Hides: how an initializer list becomes OTLP's AnyValue.
// Threads: values; not shared.
// Failure: none. What OTLP can't hold is recorded as the nearest it can: an integer above int64's range becomes its
// decimal text, text that is not UTF-8 gets U+FFFD in place of each bad byte.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace waymark {

struct Attribute;
class Attributes;

// One value. Arrays and maps cost more than the others: they are walked twice (size, then bytes).
class Value {
 public:
  enum class Type : std::uint8_t {
    empty, string, boolean, int64, uint64, float64, bytes,
    values,    // array of Value
    map,       // array of Attribute
    strings, string_views, int64s, float64s,  // homogeneous arrays
  };

  constexpr Value() noexcept : type_(Type::empty), size_(0), int_(0) {}
  constexpr Value(std::nullptr_t) noexcept : Value() {}
  constexpr Value(bool value) noexcept : type_(Type::boolean), size_(0), int_(value ? 1 : 0) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  constexpr Value(T value) noexcept : type_(Type::int64), size_(0), int_(static_cast<std::int64_t>(value)) {
    if constexpr (std::unsigned_integral<T> && sizeof(T) == 8) {
      if (value > static_cast<T>(INT64_MAX)) type_ = Type::uint64;
    }
  }
  template <std::floating_point T>
  constexpr Value(T value) noexcept : type_(Type::float64), size_(0), double_(static_cast<double>(value)) {}
  constexpr Value(std::string_view text) noexcept
      : type_(Type::string), size_(text.size()), data_(text.data()) {}
  constexpr Value(const char* text) noexcept : Value(text ? std::string_view(text) : std::string_view()) {}
  Value(const std::string& text) noexcept : Value(std::string_view(text)) {}
  Value(std::span<const std::byte> bytes) noexcept : type_(Type::bytes), size_(bytes.size()), data_(bytes.data()) {}
  Value(const std::vector<std::byte>& bytes) noexcept : Value(std::span<const std::byte>(bytes)) {}
  Value(std::span<const std::int64_t> v) noexcept : type_(Type::int64s), size_(v.size()), data_(v.data()) {}
  Value(const std::vector<std::int64_t>& v) noexcept : Value(std::span<const std::int64_t>(v)) {}
  Value(std::span<const double> v) noexcept : type_(Type::float64s), size_(v.size()), data_(v.data()) {}
  Value(const std::vector<double>& v) noexcept : Value(std::span<const double>(v)) {}
  Value(std::span<const std::string> v) noexcept : type_(Type::strings), size_(v.size()), data_(v.data()) {}
  Value(const std::vector<std::string>& v) noexcept : Value(std::span<const std::string>(v)) {}
  Value(std::span<const std::string_view> v) noexcept : type_(Type::string_views), size_(v.size()), data_(v.data()) {}
  Value(std::span<const Value> v) noexcept : type_(Type::values), size_(v.size()), data_(v.data()) {}

  // Value::array({1, "two", 3.0}) and Value::map({{"k", 1}}): the list lives until the end of the full expression.
  static Value array(std::initializer_list<Value> v) noexcept { return Value(std::span<const Value>(v.begin(), v.size())); }
  static Value map(Attributes entries) noexcept;

  [[nodiscard]] constexpr Type type() const noexcept { return type_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr const void* data() const noexcept { return data_; }
  [[nodiscard]] constexpr std::int64_t as_int() const noexcept { return int_; }
  [[nodiscard]] constexpr double as_double() const noexcept { return double_; }
  [[nodiscard]] std::string_view as_string() const noexcept { return {static_cast<const char*>(data_), size_}; }

 private:
  Type type_;
  std::size_t size_;
  union {
    std::int64_t int_;
    double double_;
    const void* data_;
  };
};

struct Attribute {
  constexpr Attribute(std::string_view key_, Value value_) noexcept : key(key_), value(value_) {}
  std::string_view key;  // case is kept; an empty key is dropped and counted
  Value value;
};

// A list of attributes, as a view. The list that it was made from lives until the end of the full expression.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime"
#endif
class Attributes {
 public:
  constexpr Attributes() noexcept = default;
  constexpr Attributes(std::initializer_list<Attribute> list) noexcept : begin_(list.begin()), size_(list.size()) {}
  Attributes(const std::vector<Attribute>& list) noexcept : begin_(list.data()), size_(list.size()) {}
  constexpr Attributes(std::span<const Attribute> list) noexcept : begin_(list.data()), size_(list.size()) {}
  [[nodiscard]] constexpr const Attribute* begin() const noexcept { return begin_; }
  [[nodiscard]] constexpr const Attribute* end() const noexcept { return begin_ + size_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }

 private:
  const Attribute* begin_ = nullptr;
  std::size_t size_ = 0;
};
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace detail {

// Gives `take` the list. Where the compiler knows how long it is, as in a call with braces, it gives a copy of it: so the
// caller's list need not exist, and is made where this call stands, not before the checks in front of it.
template <class F>
[[gnu::always_inline]] inline void made_here(Attributes list, F&& take) noexcept {
  const auto copy = [&]<std::size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
    const Attribute made[] = {list.begin()[I]...};
    take(Attributes(std::span<const Attribute>(made)));
  };
  const std::size_t size = list.size();
  if (!__builtin_constant_p(size)) return take(list);
  switch (size) {
    case 0: return take(Attributes());
    case 1: return copy(std::make_index_sequence<1>());
    case 2: return copy(std::make_index_sequence<2>());
    case 3: return copy(std::make_index_sequence<3>());
    case 4: return copy(std::make_index_sequence<4>());
    case 5: return copy(std::make_index_sequence<5>());
    case 6: return copy(std::make_index_sequence<6>());
    case 7: return copy(std::make_index_sequence<7>());
    case 8: return copy(std::make_index_sequence<8>());
    default: return take(list);
  }
}

}  // namespace detail

inline Value Value::map(Attributes entries) noexcept {
  Value v;
  v.type_ = Type::map;
  v.size_ = entries.size();
  v.data_ = entries.begin();
  return v;
}

// An owning value, as read back from telemetry. A map's entry has the members of a std::pair, and is none: clang can't
// instantiate a pair of a type that holds itself.
struct AnyValue;
struct AnyEntry;
using AnyArray = std::vector<AnyValue>;
using AnyMap = std::vector<AnyEntry>;  // in wire order
struct AnyValue {
  std::variant<std::monostate, std::string, bool, std::int64_t, double, std::vector<std::byte>, AnyArray, AnyMap> value;
  friend bool operator==(const AnyValue&, const AnyValue&);
};
struct AnyEntry {
  std::string first;
  AnyValue second;
  friend bool operator==(const AnyEntry&, const AnyEntry&) = default;
};
inline bool operator==(const AnyValue& a, const AnyValue& b) { return a.value == b.value; }

}  // namespace waymark
