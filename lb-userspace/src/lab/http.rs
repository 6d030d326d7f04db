//! As much HTTP/1.1 (RFC 9112) as a pod that names itself needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::TcpStream;

use super::server::Identity;

/// Longest head of a request, in bytes; usual for servers.
const MAX_HEAD: u64 = 16 * 1024;
/// Largest body of `/bytes/N`: 64 GiB, an hour's download.
const MAX_BYTES: u64 = 1 << 36;
/// Piece in which bodies are moved.
const CHUNK: usize = 64 * 1024;

struct Request {
    method: String,
    path: String,
    length: u64,
    chunked: bool,
    expects_continue: bool,
    close: bool,
}

/// Serves a connection until the client closes it or asks to.
///
/// # Errors
/// When the connection breaks.
pub(super) async fn serve(stream: TcpStream, identity: Arc<Identity>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (own, client) = (stream.local_addr()?, stream.peer_addr()?);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::with_capacity(CHUNK, read);
    loop {
        match read_head(&mut read).await? {
            Head::End => return Ok(()),
            Head::Bad(status) => {
                write.write_all(&head(status, status.len() as u64 + 1, true, &identity, client)).await?;
                return write.write_all(format!("{status}\n").as_bytes()).await;
            }
            Head::Request(request) => {
                answer(&mut read, &mut write, &request, &identity, own, client).await?;
                if request.close {
                    return Ok(());
                }
            }
        }
    }
}

enum Head {
    End,
    Bad(&'static str),
    Request(Request),
}

async fn read_head(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Head> {
    let mut lines = Vec::new();
    let mut limited = read.take(MAX_HEAD);
    loop {
        let mut line = Vec::new();
        let count = limited.read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Ok(match (count, limited.limit()) {
                (_, 0) => Head::Bad("431 Request Header Fields Too Large"),
                _ => Head::End,
            });
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match (line.is_empty(), lines.is_empty()) {
            // RFC 9112 section 2.2: empty lines before a request are to be skipped.
            (true, true) => {}
            (true, false) => break,
            (false, _) => lines.push(line),
        }
    }
    Ok(parse(&lines))
}

fn parse(lines: &[String]) -> Head {
    let mut words = lines.first().map_or("", String::as_str).split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Head::Bad("400 Bad Request");
    };
    if !version.starts_with("HTTP/1.") {
        return Head::Bad("505 HTTP Version Not Supported");
    }
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        length: 0,
        chunked: false,
        expects_continue: false,
        close: version == "HTTP/1.0",
    };
    for line in &lines[1..] {
        let Some((name, value)) = line.split_once(':') else { return Head::Bad("400 Bad Request") };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match value.parse() {
                Ok(length) => request.length = length,
                Err(_) => return Head::Bad("400 Bad Request"),
            },
            "transfer-encoding" => request.chunked = true,
            "expect" => request.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "connection" if value.eq_ignore_ascii_case("close") => request.close = true,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.close = false,
            _ => {}
        }
    }
    if request.chunked {
        // The echo sends the length first, so it must know it.
        return Head::Bad("411 Length Required");
    }
    Head::Request(request)
}

async fn answer(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    request: &Request,
    identity: &Identity,
    own: SocketAddr,
    client: SocketAddr,
) -> io::Result<()> {
    if request.expects_continue && request.length > 0 {
        write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if request.method == "POST" || request.method == "PUT" {
        write.write_all(&head("200 OK", request.length, request.close, identity, client)).await?;
        let copied = tokio::io::copy(&mut read.take(request.length), write).await?;
        return if copied == request.length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    // Bodies of other methods mean nothing here, but must be out of the way of the next request.
    tokio::io::copy(&mut read.take(request.length), &mut tokio::io::sink()).await?;
    if let Some(count) = request.path.strip_prefix("/bytes/") {
        return match count.parse::<u64>() {
            Ok(count) if count <= MAX_BYTES => {
                write.write_all(&head("200 OK", count, request.close, identity, client)).await?;
                if request.method == "HEAD" {
                    return Ok(());
                }
                tokio::io::copy(&mut tokio::io::repeat(b'.').take(count), write).await.map(drop)
            }
            _ => text(write, "400 Bad Request", "bytes of what count?\n", request, identity, client).await,
        };
    }
    let body = match request.path.as_str() {
        "/healthz" => "ok\n".to_owned(),
        _ => identity.line(own.ip()),
    };
    text(write, "200 OK", &body, request, identity, client).await
}

async fn text(
    write: &mut (impl AsyncWrite + Unpin),
    status: &str,
    body: &str,
    request: &Request,
    identity: &Identity,
    client: SocketAddr,
) -> io::Result<()> {
    let mut answer = head(status, body.len() as u64, request.close, identity, client);
    if request.method != "HEAD" {
        answer.extend_from_slice(body.as_bytes());
    }
    // One write: head and body leave in one segment.
    write.write_all(&answer).await
}

fn head(status: &str, length: u64, close: bool, identity: &Identity, client: SocketAddr) -> Vec<u8> {
    let connection = if close { "close" } else { "keep-alive" };
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\
         X-Pod: {}\r\nX-Client: {client}\r\n\r\n",
        identity.pod
    )
    .into_bytes()
}
