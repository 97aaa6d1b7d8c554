/** How much an open loop owes: a rate, which may change, times the time that it held. */
export class DueCount {
  #rate: number;
  #since = performance.now();
  #before = 0;

  constructor(unitsPerSecond: number) {
    this.#rate = unitsPerSecond;
  }

  /** Units that have fallen due so far, whole ones. */
  count(): number {
    return Math.floor(this.#exact());
  }

  /** Another rate from now on. */
  setRate(unitsPerSecond: number): void {
    this.#before = this.#exact();
    this.#since = performance.now();
    this.#rate = unitsPerSecond;
  }

  #exact(): number {
    return this.#before + ((performance.now() - this.#since) * this.#rate) / 1000;
  }
}
