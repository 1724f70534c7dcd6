// grid_attention on a CPU: see grid_attention.py. cpu.py compiles it for one REAL (float, double), one CHANNELS (K).
//
// The threads share out the queries. A thread takes a few queries (CHUNK) through the grid, a block of ROWS at a time,
// so that the block's content stays in the cache for all of them; logits exist for one query and one block only.
// The inner loops run along J, without branches, for the compiler to make vector instructions of.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

constexpr int K = CHANNELS;
constexpr int64_t CHUNK = 16;

inline double power(double x) { return std::exp(x); }

// e^x for x <= 0, to the last place or two: 2^whole by the bits of the exponent, the rest by a polynomial (Cephes' expf).
inline float power(float x) {
  // At -88 the exponent's bits are 0, and so is the result: products with the smallest numbers there are, as everything
  // masked would have, are many times slower.
  x = std::max(x, -88.0f);
  const int32_t whole = static_cast<int32_t>(x * 1.44269504f - 0.5f);
  const float n = static_cast<float>(whole);
  const float f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  union {
    int32_t bits;
    float value;
  } scale = {(whole + 127) << 23};
  return p * scale.value;
}

// a * b + c. Where the CPU has it in one instruction it is asked for by name: the compiler then leaves the order of such
// terms alone, and all passes round a logit in the same way. Else logits of thousands would have weights off by 1e-4.
inline REAL add_product(REAL a, REAL b, REAL c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

struct Sizes {
  int64_t B, R, I, J, block;
  int threads;
  int64_t chunks() const { return (R + CHUNK - 1) / CHUNK; }
};

}  // namespace

extern "C" void forward(const REAL* __restrict queries, const REAL* __restrict rows, const REAL* __restrict columns,
                        const REAL* __restrict content, const REAL* __restrict scale, REAL* __restrict sums,
                        REAL* __restrict row_sums, REAL* __restrict column_sums, REAL* __restrict log_sums,
                        const Sizes* sizes) {
  const int64_t B = sizes->B, R = sizes->R, I = sizes->I, J = sizes->J, block = sizes->block;
#pragma omp parallel num_threads(sizes->threads)
  {
    std::vector<REAL> logits(block * J);
#pragma omp for schedule(dynamic, 1)
    for (int64_t job = 0; job < B * sizes->chunks(); ++job) {
      const int64_t b = job / sizes->chunks(), first = job % sizes->chunks() * CHUNK;
      const int64_t count = std::min(CHUNK, R - first);
      const REAL* c = content + b * K * I * J;
      const REAL* r = scale + b * I * J;
      REAL top[CHUNK], total[CHUNK];
      for (int64_t n = 0; n < count; ++n) {
        const int64_t at = b * R + first + n;
        top[n] = std::numeric_limits<REAL>::lowest();
        total[n] = 0;
        std::fill_n(sums + at * K, K, REAL(0));
        std::fill_n(column_sums + at * J, J, REAL(0));
      }
      for (int64_t begin = 0; begin < I; begin += block) {
        const int64_t end = std::min(begin + block, I);
        for (int64_t n = 0; n < count; ++n) {
          const int64_t at = b * R + first + n;
          const REAL* __restrict column = columns + at * J;
          REAL* __restrict column_sum = column_sums + at * J;
          REAL query[K], sum[K];
          for (int k = 0; k < K; ++k) query[k] = queries[at * K + k], sum[k] = 0;

          REAL* __restrict u = logits.data();
          for (int64_t i = begin; i < end; ++i) {
            const REAL row = rows[at * I + i];
            const REAL* __restrict ri = r + i * J;
            REAL* __restrict ui = u + (i - begin) * J;
            for (int64_t j = 0; j < J; ++j) ui[j] = ri[j] * (row + column[j]);
          }
          const REAL* __restrict flat = c + begin * J;
          REAL high = top[n];
          for (int64_t m = 0; m < (end - begin) * J; ++m) {
            REAL x = u[m];
            for (int k = 0; k < K; ++k) x = add_product(query[k], flat[k * I * J + m], x);
            u[m] = x;
            high = std::max(high, x);
          }
          if (high > top[n] && begin > 0) {  // what was summed so far was relative to a lower maximum
            const REAL decay = std::exp(top[n] - high);
            total[n] *= decay;
            for (int k = 0; k < K; ++k) sums[at * K + k] *= decay;
            for (int64_t i = 0; i < begin; ++i) row_sums[at * I + i] *= decay;
            for (int64_t j = 0; j < J; ++j) column_sum[j] *= decay;
          }
          top[n] = high;

          REAL all = 0;
          for (int64_t m = 0; m < (end - begin) * J; ++m) {
            const REAL a = power(u[m] - high);
            u[m] = a;
            all += a;
            for (int k = 0; k < K; ++k) sum[k] += a * flat[k * I * J + m];
          }
          for (int64_t i = begin; i < end; ++i) {
            const REAL* __restrict ri = r + i * J;
            const REAL* __restrict ui = u + (i - begin) * J;
            REAL line = 0;
            for (int64_t j = 0; j < J; ++j) {
              line += ui[j] * ri[j];
              column_sum[j] += ui[j] * ri[j];
            }
            row_sums[at * I + i] = line;
          }
          total[n] += all;
          for (int k = 0; k < K; ++k) sums[at * K + k] += sum[k];
        }
      }
      for (int64_t n = 0; n < count; ++n) {
        const int64_t at = b * R + first + n;
        const REAL one = 1 / total[n];
        for (int k = 0; k < K; ++k) sums[at * K + k] *= one;
        for (int64_t i = 0; i < I; ++i) row_sums[at * I + i] *= one;
        for (int64_t j = 0; j < J; ++j) column_sums[at * J + j] *= one;
        log_sums[at] = top[n] + std::log(total[n]);
      }
    }
  }
}

// Gradients of queries, rows and columns, and the sums of those of the logits. `mean` is the sum of gradient times value
// over all results of a query. Logits are reckoned in the same order as forward, for the same roundings.
extern "C" void backward(const REAL* __restrict queries, const REAL* __restrict rows, const REAL* __restrict columns,
                         const REAL* __restrict content, const REAL* __restrict scale, const REAL* __restrict log_sums,
                         const REAL* __restrict mean, const REAL* __restrict d_sums, const REAL* __restrict d_row_sums,
                         const REAL* __restrict d_column_sums, REAL* __restrict d_queries, REAL* __restrict d_rows,
                         REAL* __restrict d_columns, REAL* __restrict totals, const Sizes* sizes) {
  const int64_t B = sizes->B, R = sizes->R, I = sizes->I, J = sizes->J, block = sizes->block;
#pragma omp parallel num_threads(sizes->threads)
  {
    std::vector<REAL> logits(block * J), d_logits(block * J);
#pragma omp for schedule(dynamic, 1)
    for (int64_t job = 0; job < B * sizes->chunks(); ++job) {
      const int64_t b = job / sizes->chunks(), first = job % sizes->chunks() * CHUNK;
      const int64_t count = std::min(CHUNK, R - first);
      const REAL* c = content + b * K * I * J;
      const REAL* r = scale + b * I * J;
      std::fill_n(d_queries + (b * R + first) * K, count * K, REAL(0));
      std::fill_n(d_columns + (b * R + first) * J, count * J, REAL(0));
      std::fill_n(totals + b * R + first, count, REAL(0));
      for (int64_t begin = 0; begin < I; begin += block) {
        const int64_t end = std::min(begin + block, I);
        const REAL* __restrict flat = c + begin * J;
        for (int64_t n = 0; n < count; ++n) {
          const int64_t at = b * R + first + n;
          const REAL* __restrict column = columns + at * J;
          const REAL* __restrict d_column_sum = d_column_sums + at * J;
          REAL* __restrict d_column = d_columns + at * J;
          REAL* __restrict u = logits.data();
          REAL* __restrict g = d_logits.data();
          REAL query[K], d_sum[K], d_query[K] = {}, total = 0;
          const REAL log_sum = log_sums[at], middle = mean[at];
          for (int k = 0; k < K; ++k) query[k] = queries[at * K + k], d_sum[k] = d_sums[at * K + k];
          for (int64_t i = begin; i < end; ++i) {
            const REAL row = rows[at * I + i], d_row_sum = d_row_sums[at * I + i];
            const REAL* __restrict ri = r + i * J;
            for (int64_t j = 0, m = (i - begin) * J; j < J; ++j, ++m) {
              u[m] = ri[j] * (row + column[j]);
              g[m] = ri[j] * (d_row_sum + d_column_sum[j]);
            }
          }
          for (int64_t m = 0; m < (end - begin) * J; ++m) {
            REAL x = u[m], y = g[m];
            for (int k = 0; k < K; ++k) {
              x = add_product(query[k], flat[k * I * J + m], x);
              y = add_product(d_sum[k], flat[k * I * J + m], y);
            }
            const REAL d_logit = power(std::min(x - log_sum, REAL(0))) * (y - middle);
            u[m] = d_logit;
            total += d_logit;
            for (int k = 0; k < K; ++k) d_query[k] += d_logit * flat[k * I * J + m];
          }
          for (int k = 0; k < K; ++k) d_queries[at * K + k] += d_query[k];
          totals[at] += total;
          for (int64_t i = begin; i < end; ++i) {
            const REAL* __restrict ri = r + i * J;
            const REAL* __restrict ui = u + (i - begin) * J;
            REAL line = 0;
            for (int64_t j = 0; j < J; ++j) {
              line += ui[j] * ri[j];
              d_column[j] += ui[j] * ri[j];
            }
            d_rows[at * I + i] = line;
          }
        }
      }
    }
  }
}

// Gradients of content and scale: here the threads share out the rows of the grid, and each goes through all queries.
extern "C" void backward_content(const REAL* __restrict queries, const REAL* __restrict rows,
                                 const REAL* __restrict columns, const REAL* __restrict content,
                                 const REAL* __restrict scale, const REAL* __restrict log_sums,
                                 const REAL* __restrict mean, const REAL* __restrict d_sums,
                                 const REAL* __restrict d_row_sums, const REAL* __restrict d_column_sums,
                                 REAL* __restrict d_content, REAL* __restrict d_scale, const Sizes* sizes) {
  const int64_t B = sizes->B, R = sizes->R, I = sizes->I, J = sizes->J;
  // Short rows of two threads would lie in one line of the cache, and be written by turns: several go to one thread.
  const int64_t several = std::max<int64_t>(1, 512 / J);
#pragma omp parallel for schedule(dynamic, several) num_threads(sizes->threads)
  for (int64_t job = 0; job < B * I; ++job) {
    const int64_t b = job / I, i = job % I;
    const REAL* __restrict ci = content + (b * K * I + i) * J;
    const REAL* __restrict ri = scale + (b * I + i) * J;
    REAL* __restrict d_ci = d_content + (b * K * I + i) * J;
    REAL* __restrict d_ri = d_scale + (b * I + i) * J;
    for (int k = 0; k < K; ++k) std::fill_n(d_ci + k * I * J, J, REAL(0));
    std::fill_n(d_ri, J, REAL(0));
    for (int64_t at = b * R; at < b * R + R; ++at) {
      const REAL* __restrict column = columns + at * J;
      const REAL* __restrict d_column_sum = d_column_sums + at * J;
      const REAL row = rows[at * I + i], d_row_sum = d_row_sums[at * I + i];
      REAL query[K], d_sum[K];
      for (int k = 0; k < K; ++k) query[k] = queries[at * K + k], d_sum[k] = d_sums[at * K + k];
#pragma omp simd
      for (int64_t j = 0; j < J; ++j) {
        const REAL s = row + column[j], t = d_row_sum + d_column_sum[j];
        REAL x = ri[j] * s, y = ri[j] * t;
        for (int k = 0; k < K; ++k) {
          x = add_product(query[k], ci[k * I * J + j], x);
          y = add_product(d_sum[k], ci[k * I * J + j], y);
        }
        const REAL a = power(std::min(x - log_sums[at], REAL(0))), d_logit = a * (y - mean[at]);
        d_ri[j] += d_logit * s + a * t;
        for (int k = 0; k < K; ++k) d_ci[k * I * J + j] += d_logit * query[k] + a * d_sum[k];
      }
    }
  }
}
