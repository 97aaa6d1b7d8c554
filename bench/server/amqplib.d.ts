/** The part of amqplib that the load generator uses (the package has no types of its own). */
declare module "amqplib" {
  export interface ConsumedMessage {
    readonly content: Buffer;
  }
  export interface Channel {
    assertQueue(
      name: string,
      options: { durable?: boolean; autoDelete?: boolean; exclusive?: boolean },
    ): Promise<unknown>;
    prefetch(count: number): Promise<unknown>;
    consume(queue: string, onMessage: (message: ConsumedMessage | null) => void): Promise<unknown>;
    sendToQueue(queue: string, content: Buffer): boolean;
    ack(message: ConsumedMessage): void;
  }
  export interface Connection {
    createChannel(): Promise<Channel>;
    on(event: "error" | "close", listener: (error?: Error) => void): this;
    close(): Promise<void>;
  }
  export function connect(url: string): Promise<Connection>;
}
