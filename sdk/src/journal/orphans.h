// Memory on tmpfs whose state subdirectory is gone: nobody finds it by its identity any more, and it would stay until the
// machine is started anew.
//
// Hides: how such memory says whose it is, and how its owner is known to live.
// Threads: any.
// Failure: none; what can't be told or removed stays.
#pragma once

#include <cstddef>
#include <string>

#include "journal/directory.h"

namespace waymark::journal {

// By the process that has just made the directory: held until its end, so that nobody takes it for an orphan meanwhile.
[[nodiscard]] DirectoryLock claim_memory(const Home& home);

// Says anew whose it is: where the state directory itself had to be made anew, it is another one.
void sign_memory(const Home& home);

// Removes this user's orphans: those whose state directory is seen from here, the very one, without their subdirectory, nor
// that set aside. In another mount namespace, or where a volume is not mounted, theirs may be where it always was. Returns
// how many there were.
std::size_t sweep_orphans();

}  // namespace waymark::journal
