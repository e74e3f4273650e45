// Small things that several kernels need.
#pragma once
#include "abi.h"

constexpr float kLog2E = 1.4426950408889634f;

// Kernels are launched before the one in front has finished (programmatic dependent launch). Each lets the next one come as soon as all its own blocks
// have started, and touches nothing that others write before all earlier ones are done.
__device__ __forceinline__ void letNextStart() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void waitForEarlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ float2 unpack(uint32_t pair) {
    // A bfloat16 is the upper half of a float.
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
}

// Eight bfloat16 values as floats, and back.
struct Eight {
    float v[8];

    __device__ __forceinline__ static Eight load(const bf16* from) { return of(*reinterpret_cast<const uint4*>(from)); }

    __device__ __forceinline__ static Eight of(uint4 raw) {
        Eight e;
        float2 a = unpack(raw.x), b = unpack(raw.y), c = unpack(raw.z), d = unpack(raw.w);
        e.v[0] = a.x; e.v[1] = a.y; e.v[2] = b.x; e.v[3] = b.y; e.v[4] = c.x; e.v[5] = c.y; e.v[6] = d.x; e.v[7] = d.y;
        return e;
    }

    __device__ __forceinline__ void store(bf16* to) const {
        *reinterpret_cast<uint4*>(to) = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
    }
};

__device__ __forceinline__ float warpSum(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

__device__ __forceinline__ float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float logarithm2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Sine and cosine, to some 1e-6, of any angle that a position times a frequency makes: whole turns come off first.
__device__ __forceinline__ void turn(float angle, float& sine, float& cosine) {
    const float turns = rintf(angle * 0.15915494f);
    angle = fmaf(turns, -6.28125f, angle);
    angle = fmaf(turns, -1.9353072e-3f, angle);
    __sincosf(angle, &sine, &cosine);
}

__device__ __forceinline__ uint32_t sharedAddress(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

// 16 bytes from global to shared memory in the background; zeros where `there` is false.
__device__ __forceinline__ void copyAsync(uint32_t to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0));
}
__device__ __forceinline__ void copyCommit() { asm volatile("cp.async.commit_group;"); }
template <int Pending> __device__ __forceinline__ void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending)); }

__device__ __forceinline__ void loadMatrix4(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
__device__ __forceinline__ void loadMatrix4Transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}

// An 8×8 matrix of 16-bit values, a row in four threads, turned.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
    uint32_t turned;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(pair));
    return turned;
}

// c[16×8] += a[16×16] · b[16×8]
__device__ __forceinline__ void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
