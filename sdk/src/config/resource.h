// The resource: what is given, what the environment says, what is detected, in this order.
//
// Hides: /proc, uname, OpenTelemetry's names for processor types.
// Threads: pure functions but for what they read of the process.
// Failure: detection never fails, it leaves out. Error(invalid_argument) for a service name that is no text;
//   Error(conflicting_resource) from additional_attributes().
#pragma once

#include <string>

#include "config/environment.h"
#include "waymark/resource.h"

namespace waymark::config {

// The running program's file name; empty where it can't be told.
[[nodiscard]] std::string program_name();

// Complete, as it is sent. Every call makes a new service.instance.id; whether that is the one that counts is told.
// The environment comes before `below`.
[[nodiscard]] Resource detect_resource(const Resource& given, Environment& environment,
                                       bool* instance_id_made_up = nullptr, const Resource& below = {});

// What a later configure call gives beyond the resource that recording started with: its destination's own attributes.
// Throws where it contradicts that resource.
[[nodiscard]] AnyMap additional_attributes(const Resource& started, const Resource& given);

// The name under which a service's files are kept: its own where that is a plain file name, else percent-encoded.
[[nodiscard]] std::string file_name_of(const std::string& service);

}  // namespace waymark::config
