/**
 * Keeps the order of calls on a device where some of them have pictures to prepare before they can be
 * queued: what is called later waits until they are. From there the device's own queue keeps it.
 */
export class CallOrder {
  /** Until the newest call that waits has been queued; null: nobody waits. */
  #ahead: Promise<void> | null = null;

  /** Queues at once unless an earlier call waits. @param queue hands the job to the device, synchronously */
  now<T>(queue: () => Promise<T>): Promise<T> {
    return this.#ahead ? this.after(Promise.resolve(), queue) : queue();
  }

  /** Queues when `ready` is there and every earlier call has been queued. */
  async after<P, T>(ready: Promise<P>, queue: (prepared: P) => Promise<T>): Promise<T> {
    const before = this.#ahead;
    let queued!: () => void;
    const turn = new Promise<void>((resolve) => {
      queued = resolve;
    });
    this.#ahead = turn;
    ready.catch(() => undefined); // told when its turn comes
    let result: Promise<T>;
    try {
      await before;
      result = queue(await ready);
    } finally {
      queued();
      if (this.#ahead === turn) this.#ahead = null;
    }
    return result;
  }
}

const orders = new Map<string, CallOrder>();

/** The one of a device: a teacher's calls and its student's have one order. */
export function callOrderOf(device: string): CallOrder {
  let order = orders.get(device);
  if (!order) orders.set(device, (order = new CallOrder()));
  return order;
}
