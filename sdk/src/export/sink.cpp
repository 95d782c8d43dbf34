#include "export/sink.h"

#include <exception>

#include "base/thread.h"
#include "export/response.h"
#include "transport/grpc.h"
#include "transport/http.h"
#include "waymark/error.h"

namespace waymark::delivery {
namespace {

// What both transports make of a request that got no whole answer, or none.
void put_failure(Delivery& delivery, transport::Failure failure) noexcept {
  using transport::Failure;
  delivery.aborted = failure == Failure::aborted;
  delivery.unreachable = failure == Failure::connect;
}

class HttpSink final : public Sink {
 public:
  explicit HttpSink(const DestinationConfig& config)
      : signal_(config.signal),
        headers_(config.headers),
        client_({.url = config.url,
                 .headers = config.headers,
                 .content_type = config.protocol == Protocol::http_json ? "application/json" : "application/x-protobuf",
                 .timeout = config.timeout,
                 .gzip = config.gzip,
                 .max_response_bytes = config.max_response_bytes,
                 .tls = config.tls}) {}

  Delivery send(std::span<const std::string_view> pieces) override {
    const transport::HttpResponse& response = client_.post(pieces);
    return response.failure == transport::Failure::none ? answered(response) : failed(response);
  }
  void abort() noexcept override { client_.abort(); }
  void replace_headers(const HeaderList& headers) override {
    client_.replace_headers(headers);
    headers_ = headers;
  }

 private:
  Delivery answered(const transport::HttpResponse& response) const {
    const int status = response.status;
    Evaluation evaluation = evaluate(signal_, status, response.content_type, response.body, headers_);
    Delivery delivery{.outcome = evaluation.verdict, .rejected = evaluation.rejected, .message = std::move(evaluation.message),
                      .refusal = evaluation.refusal, .status = status, .code = std::move(evaluation.code)};
    if (delivery.outcome == Outcome::delivered) return delivery;
    std::string what = "HTTP " + std::to_string(status);
    if (status >= 300 && status < 400) what += " (redirects are not followed; set the endpoint to the final URL)";
    if (!delivery.message.empty()) what += ": " + delivery.message;
    delivery.message = std::move(what);
    const std::chrono::nanoseconds in_body = evaluation.retry_delay.value_or(std::chrono::nanoseconds(0));
    delivery.retry_after = response.retry_after ? std::chrono::nanoseconds(*response.retry_after) : in_body;
    delivery.unsupported = status == 404 || status == 501;
    return delivery;
  }

  Delivery failed(const transport::HttpResponse& response) const {
    using transport::Failure;
    const Failure failure = response.failure;
    const bool hopeless = failure == Failure::too_large || failure == Failure::unreadable || failure == Failure::unusable;
    Delivery delivery{.outcome = hopeless ? Outcome::rejected : Outcome::retry, .message = printable(redacted(response.error, headers_))};
    put_failure(delivery, failure);
    return delivery;
  }

  Signal signal_;
  HeaderList headers_;  // backends quote what they were sent: their values must not come back in a message
  transport::HttpClient client_;
};

std::string method_of(Signal signal) {
  constexpr std::string_view kServices[] = {"trace.v1.TraceService", "logs.v1.LogsService", "metrics.v1.MetricsService"};
  return "/opentelemetry.proto.collector." + std::string(kServices[static_cast<std::size_t>(signal)]) + "/Export";
}

class GrpcSink final : public Sink {
 public:
  explicit GrpcSink(const DestinationConfig& config)
      : signal_(config.signal),
        headers_(config.headers),
        client_({.url = config.url,
                 .method = method_of(config.signal),
                 .headers = config.headers,
                 .timeout = config.timeout,
                 .gzip = config.gzip,
                 .max_response_bytes = config.max_response_bytes,
                 .tls = config.tls}) {}

  Delivery send(std::span<const std::string_view> pieces) override {
    const transport::GrpcResponse& response = client_.call(pieces);
    Evaluation evaluation = evaluate_grpc(signal_, response, headers_);
    Delivery delivery{.outcome = evaluation.verdict, .rejected = evaluation.rejected, .message = std::move(evaluation.message),
                      .refusal = evaluation.refusal, .status = static_cast<int>(response.status)};
    put_failure(delivery, response.failure);
    if (delivery.outcome != Outcome::delivered) {
      std::string what = "gRPC " + std::string(grpc_status_name(response.status));
      if (!delivery.message.empty()) what += ": " + delivery.message;
      delivery.message = std::move(what);
      delivery.retry_after = evaluation.retry_delay.value_or(std::chrono::nanoseconds(0));
      delivery.unsupported = response.status == transport::GrpcStatus::unimplemented;
    }
    return delivery;
  }
  void abort() noexcept override { client_.abort(); }
  void replace_headers(const HeaderList& headers) override {
    client_.replace_headers(headers);
    headers_ = headers;
  }

 private:
  Signal signal_;
  HeaderList headers_;
  transport::GrpcClient client_;
};

class CallbackSink final : public Sink {
 public:
  explicit CallbackSink(const DestinationConfig& config) : signal_(config.signal), deliver_(config.deliver) {
    if (!deliver_) {
      throw Error(ErrorCode::invalid_argument, "destination \"" + config.name +
                                                   "\": `deliver` is not set; a callback output needs a function to call");
    }
  }

  Delivery send(std::span<const std::string_view> pieces) override {
    request_.clear();
    for (const auto piece : pieces) request_.append(piece);
    try {
      const ProgramCode code;
      DeliveryResult result = deliver_(signal_, request_);
      return {.outcome = result.outcome, .rejected = result.rejected, .message = printable(result.message)};
    } catch (const std::exception& error) {
      return {.outcome = Outcome::rejected, .message = "the callback threw: " + printable(error.what())};
    } catch (...) {
      return {.outcome = Outcome::rejected, .message = "the callback threw what is no std::exception"};
    }
  }
  void abort() noexcept override {}  // nobody can end a user's function; it must return by itself

 private:
  Signal signal_;
  std::function<DeliveryResult(Signal, std::string_view)> deliver_;
  std::string request_;
};

}  // namespace

std::unique_ptr<Sink> open_sink(const DestinationConfig& config) {
  switch (config.output) {
    case Output::otlp:
      if (config.protocol == Protocol::grpc) return std::make_unique<GrpcSink>(config);
      return std::make_unique<HttpSink>(config);
    case Output::file: return open_file(config);
    case Output::console: return open_console(config);
    case Output::callback: return std::make_unique<CallbackSink>(config);
  }
  throw Error(ErrorCode::invalid_argument, "destination \"" + config.name + "\": `output` is no value of waymark::Output");
}

}  // namespace waymark::delivery
