//! The server inside a pod: it says which pod it is, over HTTP on TCP ports and in datagrams on UDP ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::http;

/// Largest UDP payload over IPv4, in bytes.
const MAX_DATAGRAM: usize = 65_507;

/// Arguments of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the pod
    #[arg(long)]
    pub pod: String,
    /// Kubernetes namespace of the pod
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// TCP port to serve HTTP on
    #[arg(long)]
    pub tcp: Vec<u16>,
    /// UDP port to answer on
    #[arg(long)]
    pub udp: Vec<u16>,
    /// File to make when all ports are open
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pod.
    pub pod: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
}

impl Identity {
    /// What the pod says of itself: `NAME ADDRESS NAMESPACE`, with the address that was dialled.
    pub fn line(&self, own: IpAddr) -> String {
        format!("{} {} {}\n", self.pod, own.to_canonical(), self.namespace)
    }
}

/// Serves until killed.
///
/// # Errors
/// When a port is taken.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let identity = Arc::new(Identity { pod: args.pod.clone(), namespace: args.namespace.clone() });
        for &port in &args.tcp {
            let listener = listen(port).await.with_context(|| format!("cannot serve TCP port {port}"))?;
            tokio::spawn(accept(listener, identity.clone()));
        }
        for &port in &args.udp {
            for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                match udp_socket(SocketAddr::new(address, port)) {
                    Ok(socket) => drop(tokio::spawn(echo(socket, identity.clone()))),
                    Err(error) if address.is_ipv6() && no_ipv6(&error) => {}
                    Err(error) => return Err(error).with_context(|| format!("cannot serve UDP port {port}")),
                }
            }
        }
        if let Some(file) = &args.ready_file {
            std::fs::write(file, format!("{}\n", std::process::id()))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        println!("{} serves TCP {:?} and UDP {:?}", args.pod, args.tcp, args.udp);
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Both families on one socket; IPv4 alone where the kernel has no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if no_ipv6(&error) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}

async fn accept(listener: TcpListener, identity: Arc<Identity>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => drop(tokio::spawn(connection(stream, client, identity.clone()))),
            Err(error) => {
                // Out of descriptors, say: give connections time to end instead of spinning.
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, identity: Arc<Identity>) {
    if let Err(error) = http::serve(stream, identity).await {
        eprintln!("connection from {client}: {error}");
    }
}

/// IPv6 sockets take IPv6 alone, so that both families can have the port.
fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;

    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let descriptor = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&descriptor, sockopt::Ipv6V6Only, &true)?;
    }
    bind(descriptor.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(std::net::UdpSocket::from(descriptor))
}

/// Answers every datagram with the pod's line and what came, cut at the largest size.
async fn echo(socket: UdpSocket, identity: Arc<Identity>) {
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // A port unreachable that an earlier answer brought back.
                eprintln!("cannot receive: {error}");
                continue;
            }
        };
        let mut answer = format!("{} {}\n", identity.pod, identity.namespace).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        answer.truncate(MAX_DATAGRAM);
        if let Err(error) = socket.send_to(&answer, client).await {
            eprintln!("cannot answer {client}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Sends `requests` over one connection and returns all that comes back.
    async fn exchange(requests: &[u8]) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity { pod: "pod-1".to_owned(), namespace: "shop".to_owned() };
        tokio::spawn(accept(listener, Arc::new(identity)));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(requests).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_more_requests() {
        let answer = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n").await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(answer.contains("pod-1 127.0.0.1 shop\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_is_closed_when_asked() {
        for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"] {
            let answer = exchange(format!("{request}GET / HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_posted_comes_back() {
        let answer =
            exchange(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /bytes/3 HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("\r\n\r\nhelloHTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n..."), "{answer}");
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for (request, status) in [
            ("nonsense\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/3\r\n\r\n".to_owned(), "505"),
            ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), "400"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "411"),
            (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000)), "431"),
        ] {
            let answer = exchange(request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }
}
