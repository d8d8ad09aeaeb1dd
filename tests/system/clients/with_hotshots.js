// Sends with the `hot-shots` package. Arguments: UDP port, TCP port. Last of all, by each way, `done`.
'use strict';

const StatsD = require('hot-shots');

Math.random = () => 0; // a sampled value is always sent, so that the sums are known

const [udp, tcp] = process.argv.slice(2, 4).map(Number);

function send(protocol, port, maxBufferSize, name) {
  const client = new StatsD({
    host: '127.0.0.1',
    port,
    protocol,
    maxBufferSize,
    prefix: `hotshots.${name}.`,
    globalTags: { env: 'test' },
    telegraf: false,
    errorHandler: (error) => {
      console.error(`${name}: ${error}`);
      process.exitCode = 1;
    },
  });
  const last = () => client.increment('done', () => client.close());
  client.increment('count');
  client.increment('count', 5);
  client.decrement('count', 2);
  client.increment('count', 10, { region: 'eu' });
  client.increment(['many.a', 'many.b'], 7);
  client.increment('sampled', 3, 0.1);
  client.gauge('gauge', 12.5);
  client.gaugeDelta('gauge', -3);
  client.timing('time', 320);
  client.timing('time', 80.5);
  for (const value of [1, 2, 3.5]) {
    client.histogram('histogram', value);
    client.distribution('distribution', value, { region: 'eu' });
  }
  for (const user of ['ann', 'bob', 'ann']) {
    client.set('users', user);
  }
  client.check('database', client.CHECKS.OK, { message: 'it is fine' });
  client.event('deploy', 'all well');
  for (let i = 0; i < 200; i += 1) {
    client.increment('loop');
  }
  client.increment('count', 1, last);
}

send('udp', udp, 0, 'udp');
send('udp', udp, 1000, 'udp_buffered');
send('tcp', tcp, 0, 'tcp');
send('tcp', tcp, 1000, 'tcp_buffered');
