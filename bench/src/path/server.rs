//! What answers: a sink for bulk, an echo for requests, by the first byte of a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::Context;
use lb_userspace::lab::netns::Namespace;
use nix::sched::CpuSet;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{Pid, gettid};

use crate::cpus;

/// First byte of a connection that only sends.
pub(crate) const BULK: u8 = b'b';
/// First byte of a request.
pub(crate) const REQUEST: u8 = b'r';
/// Bytes of a request, and of its answer.
pub(crate) const REQUEST_BYTES: usize = 64;
/// Bytes read or written at once in bulk.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Connections served at the same time.
const THREADS: usize = 36;
/// Stack of a thread: the chunk lies in the heap.
const STACK: usize = 128 * 1024;

/// A server. When it is dropped, its threads end with the connections that they have.
#[derive(Debug)]
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    threads: Vec<Pid>,
}

impl Server {
    /// Listens in `pod`.
    pub(crate) fn start(pod: &Namespace, at: SocketAddrV4) -> anyhow::Result<Self> {
        let listener = pod.run(|| TcpListener::bind(at))?.with_context(|| format!("listen on {at}"))?;
        let mut server = Self { listener: Arc::new(listener), threads: Vec::new() };
        let (send, ids) = channel();
        for _ in 0..THREADS {
            let (listener, send) = (server.listener.clone(), send.clone());
            let serve = move || {
                let _gone = send.send(gettid());
                // An error of accept: shut down. One of a connection is the client's to report.
                while let Ok((stream, _)) = listener.accept() {
                    let _reported = serve(stream);
                }
            };
            thread::Builder::new().stack_size(STACK).spawn(serve).context("start a thread")?;
        }
        server.threads = ids.iter().take(THREADS).collect();
        Ok(server)
    }

    /// Keeps the server on these CPUs.
    pub(crate) fn stay_on(&self, cpus: &CpuSet) -> io::Result<()> {
        self.threads.iter().try_for_each(|id| cpus::set(*id, cpus))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not waited for: the client's end of a connection may never come, now that nobody carries packets.
        if let Err(error) = shutdown(self.listener.as_raw_fd(), Shutdown::Both) {
            eprintln!("lb-bench: cannot stop a server: {error}");
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request[..1])?;
    if request[0] == BULK {
        let mut chunk = vec![0; CHUNK];
        while stream.read(&mut chunk)? > 0 {}
        return Ok(());
    }
    let mut have = 1;
    loop {
        while have < REQUEST_BYTES {
            match stream.read(&mut request[have..])? {
                0 => return Ok(()),
                read => have += read,
            }
        }
        stream.write_all(&request)?;
        have = 0;
    }
}
