// Command client asks a geolookup service, from Go.
//
//	client TARGET join REGION_SET < addresses
//	client TARGET takedown REGION_SET < participants
//
// join reads an address a line and prints country, status, verdict and reason of
// each, and its region, such as UA-43, where that is known. takedown reads lines of an
// id and its addresses, and prints the ids of those who are inside, and on standard
// error why others have no verdict, and the addresses of each region. REGION_SET may
// name parts of countries, such as UA/43. Addresses come by standard input, because
// command lines can be seen by others.
// SERVICE_CA is a file of the authorities that sign the service's certificate;
// without it there is no TLS.
package main

//go:generate npx --yes @bufbuild/buf@1.75.0 generate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	geolookupv1 "geolookup.example/client/gen/geolookup/v1"
)

const (
	timeout = 10 * time.Second
	// largest is the size of the largest message, in bytes. By default grpc-go receives 4 MiB
	// (an answer about 1.2 million addresses), and makes no call again whose request has more
	// than 256 KiB (of 16,000 addresses).
	largest = 64 << 20
	// serviceConfig spreads calls over all addresses of the target's name, such as the pods of a
	// headless Service. It makes calls again that no worker has answered, and those that were shed
	// for the service's load: after as many milliseconds as the service says
	// (grpc-retry-pushback-ms).
	serviceConfig = `{
		"loadBalancingConfig": [{"round_robin": {}}],
		"methodConfig": [{
			"name": [{"service": "geolookup.v1.GeoLookupService"}],
			"retryPolicy": {
				"maxAttempts": 5,
				"initialBackoff": "0.05s",
				"maxBackoff": "1s",
				"backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"]
			}
		}]
	}`
)

// reconnecting makes a connection that failed again after 0.1 s. The default, a second, is longer
// than all attempts at a call take together.
var reconnecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 || (args[1] != "join" && args[1] != "takedown") {
		return errors.New("usage: client TARGET join|takedown REGION_SET")
	}
	target, action, regionSet := args[0], args[1], args[2]
	transport, err := transportCredentials()
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		target,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(reconnecting),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(largest), grpc.MaxRetryRPCBufferSize(largest),
		),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	service := geolookupv1.NewGeoLookupServiceClient(connection)
	if action == "join" {
		return join(service, regionSet, in, out)
	}
	return takedown(service, regionSet, in, out)
}

func transportCredentials() (credentials.TransportCredentials, error) {
	if authorities := os.Getenv("SERVICE_CA"); authorities != "" {
		return credentials.NewClientTLSFromFile(authorities, "")
	}
	return insecure.NewCredentials(), nil
}

// join asks for one address after the other.
func join(service geolookupv1.GeoLookupServiceClient, regionSet string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		answer, err := service.Lookup(ctx, &geolookupv1.LookupRequest{
			Address:   &geolookupv1.LookupRequest_Text{Text: strings.TrimSpace(lines.Text())},
			RegionSet: regionSet,
		})
		cancel()
		if err != nil {
			return err
		}
		line := fmt.Sprintln(answer.Country, answer.Status, answer.Verdict, answer.Reason, answer.Region)
		if _, err = fmt.Fprintln(out, strings.TrimSpace(line)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// takedown asks for a whole roster and prints the ids of those inside. The ids
// stay here: the service sees addresses in an order, and answers with positions.
func takedown(service geolookupv1.GeoLookupServiceClient, regionSet string, in io.Reader, out io.Writer) error {
	ids, packed, sizes, err := readRoster(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := service.ClassifyRoster(ctx, &geolookupv1.ClassifyRosterRequest{
		Addresses:  &geolookupv1.ClassifyRosterRequest_Ipv6{Ipv6: packed},
		RegionSet:  regionSet,
		GroupSizes: sizes,
		Regions:    true,
	})
	if err != nil {
		return err
	}
	// A service that is older than group_sizes answers about addresses, and has 0 here.
	if int(answer.Participants) != len(ids) {
		return fmt.Errorf("asked about %d participants, answered about %d", len(ids), answer.Participants)
	}
	for _, why := range answer.ReasonCounts {
		fmt.Fprintln(os.Stderr, why.Count, "undetermined:", why.Reason)
	}
	for region, count := range regionCounts(answer.Regions) {
		fmt.Fprintln(os.Stderr, count, "addresses in:", region)
	}
	inside := roaring.New()
	if _, err := inside.FromBuffer(answer.Inside); err != nil {
		return fmt.Errorf("inside: %w", err)
	}
	if err := inside.Validate(); err != nil {
		return fmt.Errorf("inside: %w", err)
	}
	for positions := inside.Iterator(); positions.HasNext(); {
		position := positions.Next()
		if int(position) >= len(ids) {
			return fmt.Errorf("inside: a position beyond the roster's %d", len(ids))
		}
		if _, err := fmt.Fprintln(out, ids[position]); err != nil {
			return err
		}
	}
	return nil
}

// regionCounts returns how often each region occurs. The column has six bytes an address: the code,
// filled up with zeros, and none where no region is known. It is empty where no address has one.
func regionCounts(column []byte) map[string]int {
	counts := map[string]int{}
	for ; len(column) >= 6; column = column[6:] {
		if region := strings.TrimRight(string(column[:6]), "\x00"); region != "" {
			counts[region]++
		}
	}
	return counts
}

// readRoster returns the ids, the addresses packed at 16 bytes each, and how many each participant
// has: IPv4 addresses stand among them in IPv4-mapped form.
func readRoster(in io.Reader) (ids []string, packed []byte, sizes []uint32, err error) {
	lines := bufio.NewScanner(in)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			return nil, nil, nil, fmt.Errorf("line %d: expected an id and addresses", number)
		}
		for _, text := range fields[1:] {
			address, err := netip.ParseAddr(text)
			if err != nil || address.Zone() != "" {
				// The parser's own error would repeat the text.
				return nil, nil, nil, fmt.Errorf("line %d: not an address", number)
			}
			bytes := address.As16()
			packed = append(packed, bytes[:]...)
		}
		ids, sizes = append(ids, fields[0]), append(sizes, uint32(len(fields)-1))
	}
	return ids, packed, sizes, lines.Err()
}
