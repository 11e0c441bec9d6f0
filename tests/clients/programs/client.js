// SPDX-License-Identifier: Apache-2.0
// An ordinary Node program: what its sockets say of their peers, as JSON lines. Arguments: HTTP-PORT DNS-PORT ADDRESS.
'use strict';
const dgram = require('node:dgram');
const { once } = require('node:events');
const net = require('node:net');
const { Resolver } = require('node:dns').promises;

const QUERY = Buffer.from('\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x04test\0\0\x01\0\x01', 'latin1');
const [http, dns, host] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const inUrl = net.isIPv6(host) ? `[${host}]` : host;
const say = (...facts) => console.log(JSON.stringify(facts));

async function stream() {
    const socket = net.connect(http, host);
    await once(socket, 'connect');
    say('tcp', socket.remoteAddress, socket.remotePort);
    socket.destroy();
}

async function datagrams(connected) {
    const socket = dgram.createSocket(net.isIPv6(host) ? 'udp6' : 'udp4');
    if (connected) {
        socket.connect(dns, host);
        await once(socket, 'connect');
        say('udp peer', socket.remoteAddress().address, socket.remoteAddress().port);
        socket.send(QUERY);
    } else {
        socket.send(QUERY, dns, host);
    }
    const [, from] = await once(socket, 'message');
    say(connected ? 'udp connected' : 'udp', from.address, from.port);
    socket.close();
}

async function main() {
    await stream();
    await datagrams(false);
    await datagrams(true);
    const resolver = new Resolver({ timeout: 5000, tries: 1 });
    resolver.setServers([`${inUrl}:${dns}`]);
    say('resolved', ...await resolver.resolve4('web.test'), ...await resolver.resolve6('web.test'));
    console.log(await (await fetch(`http://${inUrl}/`)).text());
}

main();
