//! Names outside the cluster: asked of upstreams, one after the other.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::LowerName;
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::debug;

pub use super::cache::Heard;
use super::cache::{Cache, Key};
use super::encode::UDP_PAYLOAD;

/// Queries that may wait for upstreams at the same time; each has a socket.
const PLACES: usize = 256;
/// Patience with one upstream, before the next is asked.
pub const ATTEMPT: Duration = Duration::from_millis(1500);
/// Times that each upstream is asked.
const ROUNDS: usize = 2;
/// Patience with all of them, in attempts: in all, less than the 5 s that resolvers wait.
const ATTEMPTS: u32 = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Name, type and class.
    pub query: Query,
    /// DNSSEC records wanted (DO).
    pub dnssec: bool,
    /// Not to be validated (CD).
    pub unchecked: bool,
}

impl Question {
    fn key(&self) -> Key {
        Key {
            name: LowerName::new(self.query.name()),
            kind: self.query.query_type(),
            dnssec: self.dnssec,
            unchecked: self.unchecked,
        }
    }
}

/// Why an upstream is of no use.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("it says {0}")]
    Refused(ResponseCode),
    #[error("the question cannot be put into a message")]
    Encode,
}

/// Asks upstreams.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<SocketAddr>,
    /// The one that answered last: it is asked first.
    preferred: AtomicUsize,
    attempt: Duration,
    cache: Mutex<Cache>,
    places: Semaphore,
}

impl Forwarder {
    /// For these, in order of preference. `attempt` is the patience with one of them, usually [`ATTEMPT`].
    pub fn new(upstreams: Vec<SocketAddr>, attempt: Duration) -> Self {
        Self {
            upstreams,
            attempt,
            preferred: AtomicUsize::new(0),
            cache: Mutex::default(),
            places: Semaphore::new(PLACES),
        }
    }

    /// What is remembered about a question.
    pub fn remembered(&self, question: &Question) -> Option<Heard> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&question.key(), Instant::now())
    }

    /// A place to wait at; none when too many do.
    pub fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// Asks. None when no upstream answers in time; `failed` is called for each that does not.
    pub async fn ask(&self, question: &Question, failed: impl Fn()) -> Option<Heard> {
        let heard = timeout(self.attempt * ATTEMPTS, self.ask_all(question, &failed)).await.ok().flatten()?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put(question.key(), &heard, Instant::now());
        Some(heard)
    }

    async fn ask_all(&self, question: &Question, failed: &impl Fn()) -> Option<Heard> {
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0..ROUNDS * self.upstreams.len() {
            let number = (first + turn) % self.upstreams.len();
            let upstream = self.upstreams[number];
            let answer = timeout(self.attempt, exchange(upstream, question)).await;
            match answer.unwrap_or(Err(UpstreamError::Late)) {
                Ok(heard) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Some(heard);
                }
                Err(error) => {
                    failed();
                    debug!("DNS upstream {upstream}: {}: {error}", question.query);
                }
            }
        }
        None
    }
}

/// Asks one upstream, by UDP, and by TCP when the answer is too long for that.
async fn exchange(upstream: SocketAddr, question: &Question) -> Result<Heard, UpstreamError> {
    // The number is random, and so is the port of the socket: an answer is hard to forge (RFC 5452).
    let mut message = Message::new(random(), MessageType::Query, OpCode::Query);
    message.add_query(question.query.clone());
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.unchecked;
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(question.dnssec);
    message.set_edns(edns);
    let bytes = message.to_bytes().map_err(|_| UpstreamError::Encode)?;
    let mut answer = by_udp(upstream, &message, &bytes).await?;
    if answer.metadata.truncation {
        answer = by_tcp(upstream, &message, &bytes).await?;
    }
    match answer.metadata.response_code {
        code @ (ResponseCode::NoError | ResponseCode::NXDomain) => {
            Ok(Heard { code, answers: answer.answers, authorities: answer.authorities })
        }
        code => Err(UpstreamError::Refused(code)),
    }
}

/// A number that nobody outside can guess: of a keyed hash with another key each time, from the
/// kernel's randomness.
fn random() -> u16 {
    let [a, b, ..] = RandomState::new().hash_one(()).to_le_bytes();
    u16::from_le_bytes([a, b])
}

async fn by_udp(upstream: SocketAddr, asked: &Message, bytes: &[u8]) -> Result<Message, UpstreamError> {
    let any: IpAddr =
        if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: only this upstream is heard, and that nobody listens there is known at once.
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = accept(&buffer[..length], asked) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(upstream: SocketAddr, asked: &Message, bytes: &[u8]) -> Result<Message, UpstreamError> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| UpstreamError::Encode)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    accept(&buffer, asked).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
}

/// The message, if it is an answer to what was asked.
fn accept(bytes: &[u8], asked: &Message) -> Option<Message> {
    let answer = Message::from_bytes(bytes).ok()?;
    let fits = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == asked.queries;
    fits.then_some(answer)
}
