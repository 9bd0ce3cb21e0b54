// Subscribes with Google's official client's defaults, stays idle, then publishes one message.
// PUBSUB_EMULATOR_HOST and PUBSUB_PROJECT_ID name the server. Prints a line of JSON when it has
// subscribed, waits for a line on standard input, and prints another when the message has come. It
// goes on until it is killed.
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
      resolve();
    });
  });
  console.log(JSON.stringify({ready: true}));
  await new Promise(resolve => process.stdin.once('data', resolve));

  await topic.publishMessage({data: Buffer.from('at last')});
  await received;
  console.log(JSON.stringify({ended}));
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
