// What a job or a task is waiting for, in one line.
//
// Hides: which of a job's tasks is asked, and how far the answer is followed.
// Threads: as the store's.
// Failure: Error(store).
#pragma once

#include <string>

#include "waymark/client.h"
#include "waymark/store.h"

namespace waymark::cli {

[[nodiscard]] std::string why_task(Store& store, const TaskWait& wait);
[[nodiscard]] std::string why_job(Client& client, const Job& job);

}  // namespace waymark::cli
