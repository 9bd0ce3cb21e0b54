// Publishes and subscribes on one connection, as Node's client does by default. Prints how many of
// 200 messages arrived before their publisher had the id.
'use strict';

const {PubSub} = require('@google-cloud/pubsub');

async function main() {
  const pubsub = new PubSub();
  const [topic] = await pubsub.createTopic('orders');
  const [subscription] = await topic.createSubscription('orders.sub', {});
  const arrived = new Set();
  let wake = () => {};
  subscription.on('message', message => {
    arrived.add(message.id);
    message.ack();
    wake();
  });
  let early = 0;
  for (let n = 0; n < 200; n++) {
    const id = await topic.publishMessage({json: {n}});
    if (arrived.has(id)) early += 1;
    while (!arrived.has(id)) await new Promise(resolve => (wake = resolve));
  }
  await subscription.close();
  await pubsub.close();
  console.log(JSON.stringify({early}));
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
