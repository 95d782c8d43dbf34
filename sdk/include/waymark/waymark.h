// All of Waymark's SDK, and the runner where it is installed.
#pragma once

#include "waymark/attribute.h"
#include "waymark/config.h"
#include "waymark/configure.h"
#include "waymark/error.h"
#include "waymark/log.h"
#include "waymark/metric.h"
#include "waymark/propagation.h"
#include "waymark/resource.h"
#include "waymark/telemetry.h"
#include "waymark/trace.h"

#if __has_include("waymark/runner.h")
#include "waymark/automation.h"
#include "waymark/client.h"
#include "waymark/context.h"
#include "waymark/job.h"
#include "waymark/job_cache.h"
#include "waymark/runner.h"
#include "waymark/subtasks.h"
#include "waymark/task.h"
#endif
