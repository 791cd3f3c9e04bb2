/**
 * The order of a detector's calls, where some of them have images to prepare before they can be queued
 * on the device: what is called later waits until they are. From there the device's queue keeps it.
 */
export class CallOrder {
  /** Until the newest call that waits has been queued; null: nobody waits. */
  #last: Promise<void> | null = null;

  get waiting(): boolean {
    return this.#last !== null;
  }

  /** Takes the next place. `leave` when the call has been queued. */
  enter(): { before: Promise<void> | null; leave: () => void } {
    const before = this.#last;
    let queued!: () => void;
    const mine = new Promise<void>((resolve) => {
      queued = resolve;
    });
    this.#last = mine;
    const leave = () => {
      queued();
      if (this.#last === mine) this.#last = null;
    };
    return { before, leave };
  }
}

/**
 * Queues a call when `ready` is there and every earlier call of all `orders` has been queued.
 * @param queue hands the job to the device, synchronously
 */
export async function inTurn<P, T>(
  orders: readonly CallOrder[],
  ready: Promise<P>,
  queue: (prepared: P) => Promise<T>,
): Promise<T> {
  ready.catch(() => undefined); // told when its turn comes
  // All places at once: two calls cannot wait for each other.
  const places = orders.map((order) => order.enter());
  let result: Promise<T>;
  try {
    for (const { before } of places) await before;
    result = queue(await ready);
  } finally {
    for (const { leave } of places) leave();
  }
  return result;
}

/** Queues at once unless an earlier call waits. */
export function now<T>(orders: readonly CallOrder[], queue: () => Promise<T>): Promise<T> {
  if (!orders.some((order) => order.waiting)) return queue();
  return inTurn(orders, Promise.resolve(), queue);
}
