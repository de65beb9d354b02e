// Memory for large tensors that arrive. New memory of the system costs a page fault for every 4 KiB, which takes longer
// than to receive into memory that was used before. So it is asked for in huge pages, and what was given back lately is
// kept for the next tensor, up to kKeptBytes in the process; the system may take that, too, when it runs short
// (MADV_FREE). Any thread.
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>

namespace gradferry {

// Tensors of at least so many bytes are worth it; the rest is libtorch's own allocator's.
inline constexpr uint64_t kLargeMemoryBytes = uint64_t{4} << 20;
inline constexpr uint64_t kKeptBytes = uint64_t{256} << 20;

// Lives as long as the process. Throws std::bad_alloc.
c10::Allocator* LargeMemory();

// Bytes that are kept now, for tests.
uint64_t KeptLargeMemory();

}  // namespace gradferry
