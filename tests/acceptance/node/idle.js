// Subscribes with Google's official client's defaults, stays idle, then publishes one message.
// PUBSUB_EMULATOR_HOST and PUBSUB_PROJECT_ID name the server. Prints a line of JSON when it has
// subscribed, waits for a line on standard input, and prints how long the message took.
'use strict';

const {PubSub} = require('@google-cloud/pubsub');

async function main() {
  const pubsub = new PubSub();
  const [topic] = await pubsub.createTopic('idle');
  const [subscription] = await topic.createSubscription('idle.sub');
  const ended = [];
  subscription.on('debug', event => ended.push(event.message));
  const received = new Promise((resolve, reject) => {
    subscription.on('error', reject);
    subscription.on('message', message => {
      message.ack();
      resolve(Date.now());
    });
  });
  console.log(JSON.stringify({ready: true}));
  await new Promise(resolve => process.stdin.once('data', resolve));

  const published = Date.now();
  await topic.publishMessage({data: Buffer.from('at last')});
  const milliseconds = (await received) - published;
  await subscription.close();
  await pubsub.close();
  console.log(JSON.stringify({milliseconds, ended}));
  process.exit(0);
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
