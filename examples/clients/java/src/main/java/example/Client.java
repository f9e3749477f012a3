package example;

import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import geolookup.v1.ClassifyRosterRequest;
import geolookup.v1.ClassifyRosterResponse;
import geolookup.v1.LookupRequest;
import geolookup.v1.LookupResponse;
import geolookup.v1.ReasonCount;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.roaringbitmap.IntIterator;
import org.roaringbitmap.RoaringBitmap;

/**
 * Asks a geolookup service, from Java.
 *
 * <pre>
 *   java -jar client.jar TARGET join REGION_SET < addresses
 *   java -jar client.jar TARGET takedown REGION_SET < participants
 * </pre>
 *
 * join reads an address a line and prints country, status, verdict and reason of each. takedown
 * reads lines of an id and its addresses, and prints the ids of those who are inside, and on standard
 * error why others have no verdict. Addresses come by standard input, because command lines can be
 * seen by others. SERVICE_CA is a file of the authorities that sign the service's certificate;
 * without it there is no TLS.
 */
public final class Client {
  private static final String SERVICE = "geolookup.v1.GeoLookupService";
  private static final int TIMEOUT_SECONDS = 10;

  private static final MethodDescriptor<LookupRequest, LookupResponse> LOOKUP =
      method("Lookup", LookupRequest.getDefaultInstance(), LookupResponse.getDefaultInstance());
  private static final MethodDescriptor<ClassifyRosterRequest, ClassifyRosterResponse>
      CLASSIFY_ROSTER =
          method(
              "ClassifyRoster",
              ClassifyRosterRequest.getDefaultInstance(),
              ClassifyRosterResponse.getDefaultInstance());

  /**
   * Bytes of the largest message. By default grpc-java receives 4 MiB (an answer about 1.2 million
   * addresses), and makes no call again whose request has more than 1 MiB.
   */
  private static final int LARGEST = 64 << 20;

  /**
   * Calls are spread over all addresses of the target's name, such as the pods of a headless
   * Service. Those that no worker has answered are made again, and those that were shed for the
   * service's load: after as many milliseconds as the service says (grpc-retry-pushback-ms).
   */
  private static final Map<String, Object> SERVICE_CONFIG =
      Map.of(
          "loadBalancingConfig",
          List.of(Map.of("round_robin", Map.of())),
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(Map.of("service", SERVICE)),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 5.0,
                      "initialBackoff", "0.05s",
                      "maxBackoff", "1s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes",
                          List.of("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED")))));

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 3 || !List.of("join", "takedown").contains(arguments[1])) {
      System.err.println("usage: client TARGET join|takedown REGION_SET");
      System.exit(2);
    }
    ManagedChannel channel = connect(arguments[0]);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    int code = 0;
    try {
      if (arguments[1].equals("join")) {
        join(channel, arguments[2], in);
      } else {
        takedown(channel, arguments[2], in);
      }
    } catch (StatusRuntimeException | IOException error) {
      System.err.println("client: " + error.getMessage());
      code = 1;
    } finally {
      channel.shutdownNow();
    }
    System.exit(code);
  }

  private static ManagedChannel connect(String target) throws IOException {
    String authorities = System.getenv("SERVICE_CA");
    ChannelCredentials credentials =
        authorities == null
            ? InsecureChannelCredentials.create()
            : TlsChannelCredentials.newBuilder().trustManager(new File(authorities)).build();
    return Grpc.newChannelBuilder(target, credentials)
        .defaultServiceConfig(SERVICE_CONFIG)
        .maxInboundMessageSize(LARGEST)
        .retryBufferSize(LARGEST)
        .perRpcBufferLimit(LARGEST)
        .build();
  }

  /** What protoc's plugin for grpc-java would make, without the plugin. */
  private static <Q extends Message, A extends Message> MethodDescriptor<Q, A> method(
      String name, Q request, A answer) {
    return MethodDescriptor.<Q, A>newBuilder()
        .setType(MethodDescriptor.MethodType.UNARY)
        .setFullMethodName(MethodDescriptor.generateFullMethodName(SERVICE, name))
        .setRequestMarshaller(ProtoUtils.marshaller(request))
        .setResponseMarshaller(ProtoUtils.marshaller(answer))
        .build();
  }

  private static <Q, A> A call(Channel channel, MethodDescriptor<Q, A> method, Q request) {
    CallOptions options =
        CallOptions.DEFAULT.withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    return ClientCalls.blockingUnaryCall(channel, method, options, request);
  }

  /** Asks for one address after the other. */
  private static void join(Channel channel, String regionSet, BufferedReader in)
      throws IOException {
    for (String line; (line = in.readLine()) != null; ) {
      LookupRequest request =
          LookupRequest.newBuilder().setText(line.strip()).setRegionSet(regionSet).build();
      LookupResponse answer = call(channel, LOOKUP, request);
      System.out.println(
          String.join(
              " ",
              answer.getCountry(),
              answer.getStatus().name(),
              answer.getVerdict().name(),
              answer.getReason().name()));
    }
  }

  /**
   * Asks for a whole roster and prints the ids of those inside. The ids stay here: the service sees
   * addresses in an order, and answers with positions.
   */
  private static void takedown(Channel channel, String regionSet, BufferedReader in)
      throws IOException {
    List<String> ids = new ArrayList<>();
    ClassifyRosterRequest.Builder request = readRoster(in, ids).setRegionSet(regionSet);
    ClassifyRosterResponse answer = call(channel, CLASSIFY_ROSTER, request.build());
    // A service that is older than group_sizes answers about addresses, and has 0 here.
    int participants = answer.getParticipants();
    if (participants != ids.size()) {
      throw new IOException(
          "asked about " + ids.size() + " participants, answered about " + participants);
    }
    for (ReasonCount why : answer.getReasonCountsList()) {
      System.err.println(why.getCount() + " undetermined: " + why.getReason().name());
    }
    RoaringBitmap inside = new RoaringBitmap();
    inside.deserialize(answer.getInside().asReadOnlyByteBuffer());
    StringBuilder out = new StringBuilder();
    for (IntIterator positions = inside.getIntIterator(); positions.hasNext(); ) {
      int position = positions.next();
      if (Integer.compareUnsigned(position, ids.size()) >= 0) {
        throw new IOException("inside: a position beyond the roster");
      }
      out.append(ids.get(position)).append('\n');
    }
    System.out.print(out);
  }

  /**
   * Returns a request of the addresses packed at 16 bytes each and how many each participant has,
   * and adds the ids: IPv4 addresses stand among them in IPv4-mapped form.
   */
  private static ClassifyRosterRequest.Builder readRoster(BufferedReader in, List<String> ids)
      throws IOException {
    ClassifyRosterRequest.Builder request = ClassifyRosterRequest.newBuilder();
    ByteString.Output packed = ByteString.newOutput();
    byte[] mapped = new byte[12];
    mapped[10] = mapped[11] = (byte) 0xFF;
    for (String line; (line = in.readLine()) != null; ) {
      String[] fields = line.strip().split("\\s+");
      if (fields.length < 2) {
        throw new IOException("line " + (ids.size() + 1) + ": expected an id and addresses");
      }
      for (int field = 1; field < fields.length; field++) {
        byte[] address = parse(fields[field], ids.size() + 1);
        if (address.length == 4) {
          packed.write(mapped);
        }
        packed.write(address);
      }
      ids.add(fields[0]);
      request.addGroupSizes(fields.length - 1);
    }
    return request.setIpv6(packed.toByteString());
  }

  private static byte[] parse(String text, int line) throws IOException {
    // A name would be looked up. What is left is an address, or has no form of one.
    if (text.matches("\\d{1,3}(\\.\\d{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")) {
      try {
        return InetAddress.getByName(text).getAddress();
      } catch (IOException error) {
        // Its text would repeat the address.
      }
    }
    throw new IOException("line " + line + ": not an address");
  }
}
