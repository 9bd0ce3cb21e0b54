// Publishes and consumes with Google's official client, as its README shows. Arguments: none;
// PUBSUB_EMULATOR_HOST and PUBSUB_PROJECT_ID name the server. Prints one JSON object.
'use strict';

const {PubSub} = require('@google-cloud/pubsub');

async function main() {
  const pubsub = new PubSub();
  const [topic] = await pubsub.createTopic('orders');
  const [subscription] = await topic.createSubscription('orders.sub', {
    enableMessageOrdering: true,
    filter: 'attributes.kind = "wanted"',
  });

  const received = [];
  let nacked = 0;
  const complete = new Promise((resolve, reject) => {
    subscription.on('error', reject);
    subscription.on('message', message => {
      if (message.attributes.first && !nacked) {
        nacked += 1;
        message.nack();
        return;
      }
      received.push(message);
      message.ack();
      const ordered = received.filter(m => m.orderingKey).map(m => m.data.toString());
      const isLast = ordered.slice(-2).join() === 'ordered 1,ordered 2';
      if (isLast && new Set(received.map(m => m.id)).size === 101) resolve();
    });
  });

  const ids = await Promise.all(
    Array.from({length: 100}, (_, n) =>
      topic.publishMessage({json: {n}, attributes: {kind: n ? 'wanted' : 'unwanted'}})
    )
  );
  const ordered = pubsub.topic('orders', {messageOrdering: true});
  for (const n of [1, 2]) {
    await ordered.publishMessage({
      data: Buffer.from(`ordered ${n}`),
      orderingKey: 'key',
      attributes: {kind: 'wanted', ...(n === 1 ? {first: 'yes'} : {})},
    });
  }
  await complete;
  await subscription.close();

  const [exists] = await pubsub.subscription('missing').exists();
  const [metadata] = await subscription.getMetadata();
  await subscription.delete();
  await topic.delete();
  await pubsub.close();
  const known = new Set(ids);
  console.log(
    JSON.stringify({
      nacked,
      fromBatches: new Set(received.map(m => m.id).filter(id => known.has(id))).size,
      ordered: received.filter(m => m.orderingKey).map(m => m.data.toString()),
      numbers: [
        ...new Set(received.filter(m => !m.orderingKey).map(m => JSON.parse(m.data).n)),
      ],
      exists,
      filter: metadata.filter,
    })
  );
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
