/* Sixteen floats at a time, three ways: AVX-512, AVX2 with FMA and F16C, plain C.
 *
 * All three give the same bits: every operation is one IEEE operation per lane, a product and a sum
 * are fused where it says fma and nowhere else (the build forbids contraction), and sums over lanes
 * go through one fixed tree. So a result never depends on which of them a machine can run.
 */
#ifndef WETINK_VEC_H
#define WETINK_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

ALWAYS_INLINE uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

ALWAYS_INLINE float bf16_to_float(uint16_t x) { return bits_to_float((uint32_t)x << 16); }

/* Round to nearest, ties to even. NaN stays NaN. */
ALWAYS_INLINE uint16_t float_to_bf16(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Compute register `v` at this point: left alone, gcc puts off the additions of a block, runs out of
 * registers and spills (half the speed). */
#define V_HERE(v) __asm__ volatile("" : "+x"(v))

#if defined(WETINK_AVX512)

#include <immintrin.h>
#define WETINK_ISA "avx512-vnni"
typedef __m512 f32x16;
ALWAYS_INLINE f32x16 v_zero(void) { return _mm512_setzero_ps(); }
ALWAYS_INLINE f32x16 v_set(float x) { return _mm512_set1_ps(x); }
ALWAYS_INLINE f32x16 v_load(const float *p) { return _mm512_loadu_ps(p); }
ALWAYS_INLINE void v_store(float *p, f32x16 v) { _mm512_storeu_ps(p, v); }
ALWAYS_INLINE f32x16 v_add(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
ALWAYS_INLINE f32x16 v_sub(f32x16 a, f32x16 b) { return _mm512_sub_ps(a, b); }
ALWAYS_INLINE f32x16 v_mul(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
ALWAYS_INLINE f32x16 v_div(f32x16 a, f32x16 b) { return _mm512_div_ps(a, b); }
ALWAYS_INLINE f32x16 v_max(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
ALWAYS_INLINE f32x16 v_min(f32x16 a, f32x16 b) { return _mm512_min_ps(a, b); }
ALWAYS_INLINE f32x16 v_fma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a, b, c); }
ALWAYS_INLINE f32x16 v_abs(f32x16 a) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)));
}
ALWAYS_INLINE f32x16 v_load_bf16(const uint16_t *p) {
    __m256i half = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
ALWAYS_INLINE f32x16 v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
/* 2^n for whole n in -126 … 127. */
ALWAYS_INLINE f32x16 v_exp2_whole(f32x16 n) {
    __m512i i = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(i, 23));
}
/* Lanes from `count` on become `other`. */
ALWAYS_INLINE f32x16 v_first(f32x16 v, int count, float other) {
    __mmask16 keep = count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1u);
    return _mm512_mask_blend_ps(keep, _mm512_set1_ps(other), v);
}

/* Whole numbers from -127 to 127, stored as int8, and their sum. */
ALWAYS_INLINE int32_t v_store_int8(int8_t *p, f32x16 low, f32x16 high) {
    __m512i a = _mm512_cvttps_epi32(low), b = _mm512_cvttps_epi32(high);
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128((__m128i *)(p + LANES), _mm512_cvtepi32_epi8(b));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

#elif defined(WETINK_AVX2)

#include <immintrin.h>
#define WETINK_ISA "avx2"
typedef struct {
    __m256 a, b;
} f32x16;
#define V_BOTH(expr_a, expr_b)       \
    f32x16 out;                      \
    out.a = (expr_a);                \
    out.b = (expr_b);                \
    return out;
ALWAYS_INLINE f32x16 v_zero(void) { V_BOTH(_mm256_setzero_ps(), _mm256_setzero_ps()) }
ALWAYS_INLINE f32x16 v_set(float x) { V_BOTH(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
ALWAYS_INLINE f32x16 v_load(const float *p) { V_BOTH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)) }
ALWAYS_INLINE void v_store(float *p, f32x16 v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
ALWAYS_INLINE f32x16 v_add(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_sub(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_mul(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_div(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_max(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_min(f32x16 x, f32x16 y) {
    V_BOTH(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b))
}
ALWAYS_INLINE f32x16 v_fma(f32x16 x, f32x16 y, f32x16 z) {
    V_BOTH(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b))
}
ALWAYS_INLINE f32x16 v_abs(f32x16 x) {
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    V_BOTH(_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask))
}
ALWAYS_INLINE __m256 v_widen_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
ALWAYS_INLINE f32x16 v_load_bf16(const uint16_t *p) {
    V_BOTH(v_widen_bf16(p), v_widen_bf16(p + 8))
}
ALWAYS_INLINE f32x16 v_load_f16(const uint16_t *p) {
    V_BOTH(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
           _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))))
}
ALWAYS_INLINE __m256 v_exp2_half(__m256 n) {
    __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}
/* 2^n for whole n in -126 … 127. */
ALWAYS_INLINE f32x16 v_exp2_whole(f32x16 n) { V_BOTH(v_exp2_half(n.a), v_exp2_half(n.b)) }
/* Lanes from `count` on become `other`. */
ALWAYS_INLINE f32x16 v_first(f32x16 v, int count, float other) {
    __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    __m256i limit = _mm256_set1_epi32(count);
    __m256 fill = _mm256_set1_ps(other);
    V_BOTH(_mm256_blendv_ps(fill, v.a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, low))),
           _mm256_blendv_ps(fill, v.b, _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, high))))
}

#else

#define WETINK_ISA "portable"
typedef struct {
    float v[LANES];
} f32x16;
#define V_EACH(expr)                                  \
    f32x16 out;                                       \
    for (int i = 0; i < LANES; i++) out.v[i] = (expr); \
    return out;
ALWAYS_INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, m = h & 0x3ffu;
    if (exponent == 31u) return bits_to_float(sign | 0x7f800000u | (m << 13));
    if (exponent) return bits_to_float(sign | ((exponent + 112u) << 23) | (m << 13));
    /* A subnormal half is m * 2^-24, exact in single precision. */
    float value = (float)m * 5.9604644775390625e-8f;
    return sign ? -value : value;
}
ALWAYS_INLINE f32x16 v_zero(void) { V_EACH(0.0f) }
ALWAYS_INLINE f32x16 v_set(float x) { V_EACH(x) }
ALWAYS_INLINE f32x16 v_load(const float *p) { V_EACH(p[i]) }
ALWAYS_INLINE void v_store(float *p, f32x16 v) { memcpy(p, v.v, sizeof v.v); }
ALWAYS_INLINE f32x16 v_add(f32x16 a, f32x16 b) { V_EACH(a.v[i] + b.v[i]) }
ALWAYS_INLINE f32x16 v_sub(f32x16 a, f32x16 b) { V_EACH(a.v[i] - b.v[i]) }
ALWAYS_INLINE f32x16 v_mul(f32x16 a, f32x16 b) { V_EACH(a.v[i] * b.v[i]) }
ALWAYS_INLINE f32x16 v_div(f32x16 a, f32x16 b) { V_EACH(a.v[i] / b.v[i]) }
/* As x86 does it: the second one where either is NaN. */
ALWAYS_INLINE f32x16 v_max(f32x16 a, f32x16 b) { V_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]) }
ALWAYS_INLINE f32x16 v_min(f32x16 a, f32x16 b) { V_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]) }
ALWAYS_INLINE f32x16 v_fma(f32x16 a, f32x16 b, f32x16 c) {
    V_EACH(__builtin_fmaf(a.v[i], b.v[i], c.v[i]))
}
ALWAYS_INLINE f32x16 v_abs(f32x16 a) { V_EACH(__builtin_fabsf(a.v[i])) }
ALWAYS_INLINE f32x16 v_load_bf16(const uint16_t *p) { V_EACH(bf16_to_float(p[i])) }
ALWAYS_INLINE f32x16 v_load_f16(const uint16_t *p) { V_EACH(half_to_float(p[i])) }
/* 2^n for whole n in -126 … 127. */
ALWAYS_INLINE f32x16 v_exp2_whole(f32x16 n) {
    V_EACH(bits_to_float((uint32_t)(127 + (n.v[i] >= -126.0f ? (int32_t)n.v[i] : -127)) << 23))
}
/* Lanes from `count` on become `other`. */
ALWAYS_INLINE f32x16 v_first(f32x16 v, int count, float other) {
    V_EACH(i < count ? v.v[i] : other)
}

#endif

#if !defined(WETINK_AVX512)
/* Whole numbers from -127 to 127, stored as int8, and their sum. */
ALWAYS_INLINE int32_t v_store_int8(int8_t *p, f32x16 low, f32x16 high) {
    float x[2 * LANES];
    v_store(x, low);
    v_store(x + LANES, high);
    int32_t total = 0;
    for (int i = 0; i < 2 * LANES; i++) {
        p[i] = (int8_t)(int32_t)x[i];
        total += p[i];
    }
    return total;
}
#endif

/* Sum of the lanes through one fixed tree: halves are added, four times. */
ALWAYS_INLINE float v_sum(f32x16 v) {
    float x[LANES];
    v_store(x, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

ALWAYS_INLINE float v_largest(f32x16 v) {
    float x[LANES];
    v_store(x, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
}

/* Nearest whole number, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits. */
ALWAYS_INLINE f32x16 v_round(f32x16 x) {
    f32x16 magic = v_set(12582912.0f);
    return v_sub(v_add(x, magic), magic);
}

/* e^x within 2 units in the last place; below -87 it is e^-87, above 88 e^88; NaN stays NaN, since
 * v_max and v_min give their second argument for it. Cody and Waite's reduction to |r| <= ln2 / 2,
 * then the Taylor polynomial of degree 7. */
ALWAYS_INLINE f32x16 v_exp(f32x16 x) {
    x = v_min(v_set(88.0f), v_max(v_set(-87.0f), x));
    f32x16 n = v_round(v_mul(x, v_set(1.44269504f)));
    f32x16 r = v_fma(n, v_set(-0.693145751953125f), x);
    r = v_fma(n, v_set(-1.42860682e-6f), r);
    f32x16 p = v_set(1.0f / 5040.0f);
    p = v_fma(p, r, v_set(1.0f / 720.0f));
    p = v_fma(p, r, v_set(1.0f / 120.0f));
    p = v_fma(p, r, v_set(1.0f / 24.0f));
    p = v_fma(p, r, v_set(1.0f / 6.0f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_mul(p, v_exp2_whole(n));
}

/* Natural logarithm of a positive normal number, within 2 units in the last place, the same on
 * every machine (a C library's is not): log m = 2 atanh((m - 1) / (m + 1)) for m near 1. */
ALWAYS_INLINE double exact_log(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, sum = 1.0 / 21.0;
    for (int odd = 19; odd >= 3; odd -= 2) sum = sum * z + 1.0 / odd;
    double high = exponent * 0.693147180369123816490, low = exponent * 1.90821492927058770002e-10;
    return high + (2.0 * s + (2.0 * s * z * sum + low));
}

#endif
