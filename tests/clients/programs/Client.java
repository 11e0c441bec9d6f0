// SPDX-License-Identifier: Apache-2.0
// An ordinary Java program: what its sockets say of their peers, as JSON lines. Arguments: HTTP-PORT DNS-PORT ADDRESS.
import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.channels.DatagramChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

public class Client {
    private static final byte[] QUERY =
        "\u0012\u0034\1\0\0\1\0\0\0\0\0\0\3web\4test\0\0\1\0\1".getBytes(StandardCharsets.ISO_8859_1);

    private static void say(String what, InetSocketAddress address) {
        String host = address.getAddress().getHostAddress();
        System.out.println("[\"" + what + "\", \"" + host + "\", " + address.getPort() + "]");
    }

    /** The same socket unconnected, then connected: it drops what comes from anybody else. */
    private static void datagrams(InetSocketAddress server) throws Exception {
        try (DatagramSocket socket = new DatagramSocket()) {
            socket.setSoTimeout(5000);
            DatagramPacket answer = new DatagramPacket(new byte[512], 512);
            socket.send(new DatagramPacket(QUERY, QUERY.length, server));
            socket.receive(answer);
            say("udp", (InetSocketAddress) answer.getSocketAddress());
            socket.connect(server);
            socket.send(new DatagramPacket(QUERY, QUERY.length));
            socket.receive(answer);
            say("udp connected", (InetSocketAddress) answer.getSocketAddress());
        }
    }

    private static void channels(InetSocketAddress web, InetSocketAddress server) throws Exception {
        try (SocketChannel channel = SocketChannel.open(web)) {
            say("tcp", (InetSocketAddress) channel.getRemoteAddress());
        }
        try (DatagramChannel channel = DatagramChannel.open()) {
            channel.send(ByteBuffer.wrap(QUERY), server);
            say("udp channel", (InetSocketAddress) channel.receive(ByteBuffer.allocate(512)));
        }
    }

    public static void main(String[] arguments) throws Exception {
        InetAddress host = InetAddress.getByName(arguments[2]);
        InetSocketAddress server = new InetSocketAddress(host, Integer.parseInt(arguments[1]));
        datagrams(server);
        channels(new InetSocketAddress(host, Integer.parseInt(arguments[0])), server);
        String inUrl = arguments[2].contains(":") ? "[" + arguments[2] + "]" : arguments[2];
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + inUrl + "/"))
            .timeout(Duration.ofSeconds(5)).build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
