//! Asks a geolookup service, from Rust.
//!
//!     client TARGET join REGION_SET < addresses
//!     client TARGET takedown REGION_SET < participants
//!
//! join reads an address a line and prints country, status, verdict and reason of each. takedown
//! reads lines of an id and its addresses, and prints the ids of those who are inside, and on
//! standard error why others have no verdict. Addresses come by standard input, because command
//! lines can be seen by others. SERVICE_CA is a file of the authorities that sign the service's
//! certificate; without it there is no TLS.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

mod v1 {
    tonic::include_proto!("geolookup.v1");
}

use v1::classify_roster_request::Addresses;
use v1::geo_lookup_service_client::GeoLookupServiceClient;
use v1::lookup_request::Address;

type Client = GeoLookupServiceClient<Channel>;
type Outcome<T> = Result<T, Box<dyn Error>>;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the largest message. By default tonic receives 4 MiB, an answer about 1.2 million
/// addresses.
const LARGEST: usize = 64 << 20;
const ATTEMPTS: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("client: {error}");
        std::process::exit(1);
    }
}

async fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, action, region_set] = &arguments[..] else {
        return Err("usage: client TARGET join|takedown REGION_SET".into());
    };
    let service = connect(target)?;
    match action.as_str() {
        "join" => join(service, region_set).await,
        "takedown" => takedown(service, region_set).await,
        _ => Err("usage: client TARGET join|takedown REGION_SET".into()),
    }
}

/// Returns a client that connects with its first call, and again when the connection was lost.
fn connect(target: &str) -> Outcome<Client> {
    let endpoint = match std::env::var_os("SERVICE_CA") {
        None => Endpoint::from_shared(format!("http://{target}"))?,
        Some(file) => Endpoint::from_shared(format!("https://{target}"))?.tls_config(
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(file)?)),
        )?,
    };
    Ok(Client::new(endpoint.connect_lazy())
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST))
}

/// Makes a call again that no worker has answered, or that was shed for the service's load: after
/// as many milliseconds as the service says. tonic itself makes no call again.
async fn with_retries<T, F>(mut call: impl FnMut(Duration) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let deadline = Instant::now() + TIMEOUT;
    let mut backoff = Duration::from_millis(50);
    for attempt in 1.. {
        let left = deadline.saturating_duration_since(Instant::now());
        let status = match tokio::time::timeout(left, call(left)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => return Err(Status::deadline_exceeded("no answer in time")),
        };
        let hint = status.metadata().get("grpc-retry-pushback-ms");
        let hint = hint.map(|value| value.to_str().unwrap_or("").parse::<u64>());
        let retryable = match status.code() {
            Code::Unavailable | Code::Cancelled | Code::ResourceExhausted => true,
            // How tonic reports a connection that was lost with calls on it.
            Code::Unknown | Code::Internal => status.source().is_some(),
            _ => false,
        };
        if !retryable || attempt == ATTEMPTS || matches!(hint, Some(Err(_))) {
            return Err(status);
        }
        tokio::time::sleep(match hint {
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds),
            _ => backoff,
        })
        .await;
        backoff = (2 * backoff).min(Duration::from_secs(1));
    }
    unreachable!()
}

fn request<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Asks for one address after the other.
async fn join(service: Client, region_set: &str) -> Outcome<()> {
    for line in io::stdin().lock().lines() {
        let message = v1::LookupRequest {
            address: Some(Address::Text(line?.trim().to_owned())),
            region_set: region_set.to_owned(),
            ..Default::default()
        };
        let answer = with_retries(|left| {
            let (mut service, request) = (service.clone(), request(message.clone(), left));
            async move { service.lookup(request).await }
        })
        .await
        .map_err(told)?;
        println!(
            "{} {} {} {}",
            answer.country,
            answer.status().as_str_name(),
            answer.verdict().as_str_name(),
            answer.reason().as_str_name(),
        );
    }
    Ok(())
}

/// Asks for a whole roster and prints the ids of those inside. The ids stay here: the service
/// sees addresses in an order, and answers with positions.
async fn takedown(service: Client, region_set: &str) -> Outcome<()> {
    let (ids, packed, group_sizes) = read_roster(io::stdin().lock())?;
    let message = v1::ClassifyRosterRequest {
        addresses: Some(Addresses::Ipv6(packed.into())),
        region_set: region_set.to_owned(),
        group_sizes,
        ..Default::default()
    };
    let answer = with_retries(|left| {
        let (mut service, request) = (service.clone(), request(message.clone(), left));
        async move { service.classify_roster(request).await }
    })
    .await
    .map_err(told)?;
    // A service that is older than group_sizes answers about addresses, and has 0 here.
    if answer.participants as usize != ids.len() {
        return Err(format!(
            "asked about {} participants, answered about {}",
            ids.len(),
            answer.participants
        )
        .into());
    }
    for why in &answer.reason_counts {
        eprintln!("{} undetermined: {}", why.count, why.reason().as_str_name());
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for position in RoaringBitmap::deserialize_from(answer.inside.as_deref().unwrap_or_default())? {
        let id = ids
            .get(position as usize)
            .ok_or("inside: a position beyond the roster")?;
        writeln!(out, "{id}")?;
    }
    Ok(out.flush()?)
}

fn told(status: Status) -> Box<dyn Error> {
    format!("{:?}: {}", status.code(), status.message()).into()
}

/// Returns the ids, the addresses packed at 16 bytes each, and how many each participant has: IPv4
/// addresses stand among them in IPv4-mapped form.
fn read_roster(input: impl BufRead) -> Outcome<(Vec<String>, Vec<u8>, Vec<u32>)> {
    let (mut ids, mut packed, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        let mut fields = line.split_whitespace();
        let id = fields.next().unwrap_or_default();
        let mut size = 0;
        for text in fields {
            // The parser's own error is not passed on: it might repeat the text.
            packed.extend(match text.parse() {
                Ok(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
                Ok(IpAddr::V6(address)) => address.octets(),
                Err(_) => return Err(format!("line {}: not an address", number + 1).into()),
            });
            size += 1;
        }
        if size == 0 {
            return Err(format!("line {}: expected an id and addresses", number + 1).into());
        }
        ids.push(id.to_owned());
        sizes.push(size);
    }
    Ok((ids, packed, sizes))
}
