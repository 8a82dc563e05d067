// MLX's allocator as C functions that hand out the address of the bytes.
#include <cstddef>
#include <mlx/allocator.h>
#include <mlx/memory.h>

namespace allocator = mlx::core::allocator;

// From a buffer's handle to its bytes: on the CPU a header of fixed length. And the cache limit
// that MLX documents, its memory limit: on the CPU it starts with one that long blocks do not fit.
static std::ptrdiff_t header()
{
    mlx::core::set_cache_limit(mlx::core::get_memory_limit());
    auto buffer = allocator::allocator().malloc(4096);
    auto length = static_cast<char *>(buffer.raw_ptr()) - static_cast<char *>(buffer.ptr());
    allocator::allocator().free(buffer);
    return length;
}

static const std::ptrdiff_t HEADER = header();

extern "C" void *mlx_malloc(std::size_t n)
{
    return static_cast<char *>(allocator::allocator().malloc(n).ptr()) + HEADER;
}

extern "C" void mlx_free(void *start)
{
    allocator::allocator().free(allocator::Buffer(static_cast<char *>(start) - HEADER));
}

extern "C" void mlx_clear_cache()
{
    mlx::core::clear_cache();
}
