//! The sockets, on a thread of their own: planning thousands of Services does not keep a query waiting.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::LowerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{debug, error};

use super::DnsError;
use super::answer::{Context, Response, Step, Transport, answer};
use super::build::{self, ZoneConfig};
use super::counters::Counters;
use super::forward::{Forwarder, Heard, Question};
use super::listen::listen;
use super::zone::Zone;
use crate::model::{Allocations, ModelConfig};
use crate::source::Objects;

/// TCP connections at the same time; more wait.
const CONNECTIONS: usize = 128;
/// How long a connection may be silent, or take over one message.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a query. Real ones have less than 600: one name, and options.
const MAX_QUERY: usize = 4096;
/// How old the counters may be that others see.
const PUBLISH: Duration = Duration::from_secs(1);
/// Pause after the kernel has refused to give something (no descriptors or memory left).
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked for on the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen, by UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Who knows about other names, in order of preference.
    pub upstreams: Vec<SocketAddr>,
    /// Patience with one upstream.
    pub attempt: Duration,
    /// The cluster's own names.
    pub zone: ZoneConfig,
}

/// A running server. Ends when dropped.
#[derive(Debug)]
pub struct Dns {
    zone: Arc<ArcSwap<Zone>>,
    config: ZoneConfig,
    serial: u32,
    /// Taken when there is something to say.
    begin: Option<oneshot::Sender<()>>,
    _stop: oneshot::Sender<()>,
}

impl Dns {
    /// Opens the sockets. Queries wait in them until the first [`Self::update`]: an agent that has just been started again
    /// must not say that there are no names, or clients remember that.
    ///
    /// `serial` is that of the first zone.
    ///
    /// # Errors
    /// [`DnsError`]: a socket cannot be opened.
    pub fn start(settings: Settings, serial: u32) -> Result<Self, DnsError> {
        if let Some(own) = settings.upstreams.iter().find(|address| settings.listen.contains(address)) {
            return Err(DnsError::Loop(*own));
        }
        let sockets: Vec<_> =
            settings.listen.iter().map(|address| listen(*address)).collect::<Result<_, _>>()?;
        let mut config = settings.zone;
        config.servers = settings.listen.iter().map(SocketAddr::ip).collect();
        let zone = Zone::new(config.domain.clone(), serial, config.ttl, Vec::new());
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let server = Arc::new(Server {
            counters: Counters::new(settings.listen).map_err(DnsError::Counters)?,
            zone: Arc::clone(&zone),
            forwarder: (!settings.upstreams.is_empty())
                .then(|| Forwarder::new(settings.upstreams, settings.attempt)),
            turn: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DnsError::Thread)?;
        let (stop, mut stopped) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = begun => {}
                        _ = &mut stopped => return,
                    }
                    tokio::spawn(Arc::clone(&server).publish());
                    for (udp, tcp) in sockets {
                        if let Err(error) = server.serve(udp, tcp) {
                            error!("DNS: {error}");
                        }
                    }
                    let _dropped = stopped.await;
                });
            })
            .map_err(DnsError::Thread)?;
        Ok(Self { zone, config, serial, begin: Some(begin), _stop: stop })
    }

    /// Answers from these objects from now on.
    pub fn update(&mut self, model: &ModelConfig, objects: &Objects, allocations: &Allocations) {
        self.serial = self.serial.wrapping_add(1);
        let zone = build::build(&self.config, self.serial, model, objects, allocations);
        self.zone.store(Arc::new(zone));
        if let Some(begin) = self.begin.take() {
            // Nobody is there when the thread has ended, which it does not before this.
            let _ended = begin.send(());
        }
    }
}

/// What all sockets share.
#[derive(Debug)]
struct Server {
    counters: Counters,
    zone: Arc<ArcSwap<Zone>>,
    forwarder: Option<Forwarder>,
    turn: AtomicUsize,
    places: Arc<Semaphore>,
}

impl Server {
    fn serve(self: &Arc<Self>, udp: UdpSocket, tcp: TcpListener) -> std::io::Result<()> {
        let udp = Arc::new(net::UdpSocket::from_std(udp)?);
        let tcp = net::TcpListener::from_std(tcp)?;
        tokio::spawn(Arc::clone(self).datagrams(udp));
        tokio::spawn(Arc::clone(self).connections(tcp));
        Ok(())
    }

    async fn datagrams(self: Arc<Self>, socket: Arc<net::UdpSocket>) {
        let mut buffer = vec![0; MAX_QUERY];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    debug!("DNS by UDP: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let response = match self.step(&buffer[..length], Transport::Udp) {
                Step::Ignore => continue,
                Step::Reply(response) => response,
                Step::Ask(response, query) => match self.remembered(response, query) {
                    Ok(response) => response,
                    Err((response, question)) => {
                        let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
                        tokio::spawn(async move {
                            let response = server.ask(response, question).await;
                            server.send(&socket, response, from).await;
                        });
                        continue;
                    }
                },
            };
            self.send(&socket, response, from).await;
        }
    }

    async fn connections(self: Arc<Self>, listener: net::TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!("DNS by TCP: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = server.connection(stream).await {
                    debug!("DNS by TCP: {error}");
                }
                drop(place);
            });
        }
    }

    /// Answers the queries of a connection, one after the other, until it is closed or silent (RFC 7766).
    async fn connection(&self, mut stream: net::TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        loop {
            let read = async {
                let length = usize::from(stream.read_u16().await?);
                if length > MAX_QUERY {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                buffer.resize(length, 0);
                stream.read_exact(&mut buffer).await
            };
            match timeout(IDLE, read).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_idle) => return Ok(()),
            }
            let response = match self.step(&buffer, Transport::Tcp) {
                // Not a query: who sends such things is not waited for.
                Step::Ignore => return Ok(()),
                Step::Reply(response) => response,
                Step::Ask(response, query) => match self.remembered(response, query) {
                    Ok(response) => response,
                    Err((response, question)) => self.ask(response, question).await,
                },
            };
            self.counters.answered(&response.message, Transport::Tcp);
            let Some(bytes) = response.encode() else { return Ok(()) };
            // No answer is longer than its limit, which is a u16's.
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            let message = [&length.to_be_bytes(), &*bytes].concat();
            timeout(IDLE, stream.write_all(&message)).await??;
        }
    }

    fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let context = Context { transport, upstreams: self.forwarder.is_some(), turn };
        let step = answer(&self.zone.load(), bytes, context);
        if matches!(step, Step::Ignore) {
            self.counters.lock().ignored += 1;
        }
        step
    }

    /// The rest of an answer from memory, or the question that is to be asked.
    #[expect(clippy::result_large_err, reason = "both sides are the same response")]
    fn remembered(&self, response: Response, query: Query) -> Result<Response, (Response, Question)> {
        let unchecked = response.message.metadata.checking_disabled;
        let question = Question { query, dnssec: response.dnssec, unchecked };
        match self.forwarder.as_ref().and_then(|forwarder| forwarder.remembered(&question)) {
            Some(heard) => {
                self.counters.lock().from_cache += 1;
                Ok(complete(response, heard))
            }
            None => Err((response, question)),
        }
    }

    /// The rest of an answer from upstreams.
    async fn ask(&self, response: Response, question: Question) -> Response {
        let Some(forwarder) = &self.forwarder else { return response.refuse(ResponseCode::Refused) };
        let Some(_place) = forwarder.place() else {
            self.counters.lock().turned_away += 1;
            return response.refuse(ResponseCode::ServFail);
        };
        self.counters.lock().forwarded += 1;
        match forwarder.ask(&question, || self.counters.lock().upstream_failures += 1).await {
            Some(heard) => complete(response, heard),
            None => response.refuse(ResponseCode::ServFail),
        }
    }

    async fn send(&self, socket: &net::UdpSocket, response: Response, to: SocketAddr) {
        self.counters.answered(&response.message, Transport::Udp);
        // Nobody can be reached at port 0.
        if to.port() == 0 {
            return;
        }
        if let Some(bytes) = response.encode()
            && let Err(error) = socket.send_to(&bytes, to).await
        {
            debug!("DNS to {to}: {error}");
        }
    }

    /// Keeps what others see of the counters up to date.
    async fn publish(self: Arc<Self>) {
        let mut looks = tokio::time::interval(PUBLISH);
        loop {
            looks.tick().await;
            if let Err(error) = self.counters.publish() {
                debug!("DNS: cannot write the counters: {error}");
            }
        }
    }
}

/// Puts what was heard behind what is known.
fn complete(mut response: Response, mut heard: Heard) -> Response {
    let message = &mut response.message;
    // Whoever asked in another case gets it back in that: some compare (draft-vixie-dnsext-dns0x20).
    if let Some(question) = message.queries.first() {
        let lower = LowerName::new(question.name());
        for record in heard.answers.iter_mut().filter(|record| LowerName::new(&record.name) == lower) {
            record.name = question.name().clone();
        }
    }
    message.metadata.response_code = heard.code;
    message.answers.append(&mut heard.answers);
    message.authorities.append(&mut heard.authorities);
    response
}
