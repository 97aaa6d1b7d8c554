/**
 * The few statistics that the benchmarks need: median, bootstrap confidence interval of a median, straight line through samples.
 * Random numbers come from a seeded generator, so that a report can be computed again from the same samples.
 */

/** An estimate with its 95 % confidence interval. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Seeded generator of numbers in [0, 1) (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Quantile `q` (0 … 1) with linear interpolation; NaN of nothing. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)] ?? NaN;
  const above = sorted[Math.ceil(at)] ?? NaN;
  return below + (above - below) * (at - Math.floor(at));
}

/** Median; NaN of nothing. */
export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** A statistic of samples, and its 95 % percentile interval by resampling them. */
export function bootstrap<T>(
  samples: readonly T[],
  statistic: (samples: readonly T[]) => number,
  resamples = 4000,
  seed = 1,
): Estimate {
  const next = random(seed);
  const results: number[] = [];
  for (let r = 0; r < resamples; r += 1) {
    results.push(statistic(samples.map(() => samples[Math.floor(next() * samples.length)] as T)));
  }
  return { value: statistic(samples), low: quantile(results, 0.025), high: quantile(results, 0.975) };
}

/** The median and its 95 % interval. */
export const medianEstimate = (values: readonly number[]): Estimate => bootstrap(values, median);

/** What independent estimates of the same kind say together: their mean, each weighted by the inverse of its variance (from its interval). */
export function pooled(estimates: readonly Estimate[]): Estimate {
  const weighted = estimates.map(({ value, low, high }) => ({
    value,
    weight: ((2 * 1.96) / (high - low)) ** 2,
  }));
  const weights = weighted.reduce((sum, { weight }) => sum + weight, 0);
  const value = weighted.reduce((sum, { value, weight }) => sum + value * weight, 0) / weights;
  const half = 1.96 / Math.sqrt(weights);
  return { value, low: value - half, high: value + half };
}

/**
 * Slope of the least-squares line through samples in order of time, with a 95 % interval by moving-block bootstrap of the
 * residuals: neighbouring samples of a heap resemble each other (it grows between two collections), which the textbook interval ignores.
 */
export function slopeEstimate(
  x: readonly number[],
  y: readonly number[],
  resamples = 2000,
  seed = 1,
): Estimate {
  const fit = (values: readonly number[]): [slope: number, offset: number] => {
    const meanX = x.reduce((a, b) => a + b, 0) / x.length;
    const meanY = values.reduce((a, b) => a + b, 0) / x.length;
    let xx = 0;
    let xy = 0;
    x.forEach((xi, i) => {
      xx += (xi - meanX) ** 2;
      xy += (xi - meanX) * ((values[i] ?? NaN) - meanY);
    });
    return [xy / xx, meanY - (xy / xx) * meanX];
  };
  const [slope, offset] = fit(y);
  const fitted = x.map((xi) => offset + slope * xi);
  const residuals = y.map((yi, i) => yi - (fitted[i] ?? NaN));
  const block = Math.max(1, Math.round(Math.sqrt(x.length)));
  const next = random(seed);
  const slopes: number[] = [];
  for (let r = 0; r < resamples; r += 1) {
    const resampled: number[] = [];
    while (resampled.length < x.length) {
      const start = Math.floor(next() * (x.length - block + 1));
      resampled.push(...residuals.slice(start, start + block));
    }
    slopes.push(fit(fitted.map((value, i) => value + (resampled[i] ?? 0)))[0]);
  }
  return { value: slope, low: quantile(slopes, 0.025), high: quantile(slopes, 0.975) };
}

/** `1.23 (1.20 … 1.27)`. */
export const formatEstimate = ({ value, low, high }: Estimate, digits = 2): string =>
  `${value.toFixed(digits)} (${low.toFixed(digits)} … ${high.toFixed(digits)})`;
