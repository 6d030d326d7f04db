//! What the server has done, for `lb status`.
//!
//! The agent writes it into a file in memory that only it has open; others find it among the agent's open files. So it needs
//! no place on a disk, is gone when the agent is, and is found from any network namespace by whoever may look into the
//! agent.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::answer::Transport;

/// Name of the file in memory.
const NAME: &str = "lb-dns-counts";
/// A reader may come while the writer writes; not that often in a row.
const TRIES: usize = 10;

/// What has been done since the agent started. The field names are stable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Counts {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Queries answered by UDP.
    pub udp: u64,
    /// Queries answered by TCP.
    pub tcp: u64,
    /// Messages that were no queries: never answered.
    pub ignored: u64,
    /// Answers by type of the question.
    pub types: BTreeMap<String, u64>,
    /// Answers by response code.
    pub codes: BTreeMap<String, u64>,
    /// Answered from what upstreams had said before.
    pub from_cache: u64,
    /// Asked of upstreams.
    pub forwarded: u64,
    /// Upstreams that did not answer, or not well.
    pub upstream_failures: u64,
    /// Not asked of upstreams, because too many queries waited for them.
    pub turned_away: u64,
}

/// Counts that are being kept.
#[derive(Debug)]
pub(super) struct Counters {
    counts: Mutex<Counts>,
    file: File,
}

impl Counters {
    pub(super) fn new(listen: Vec<SocketAddr>) -> io::Result<Self> {
        let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?);
        let counts = Mutex::new(Counts { listen, ..Counts::default() });
        let this = Self { counts, file };
        this.publish()?;
        Ok(this)
    }

    /// The counts, to be changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer.
    pub(super) fn answered(&self, message: &Message, transport: Transport) {
        let mut counts = self.lock();
        match transport {
            Transport::Udp => counts.udp += 1,
            Transport::Tcp => counts.tcp += 1,
        }
        let kind = message.queries.first().map(|question| question.query_type());
        add(&mut counts.types, kind.map_or("none", type_name));
        add(&mut counts.codes, code_name(message.metadata.response_code));
    }

    /// Writes them where others can read them. What is shorter than before is filled up with blanks.
    pub(super) fn publish(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(&*self.lock())?;
        let length = usize::try_from(self.file.metadata()?.len()).unwrap_or_default();
        text.resize(text.len().max(length), b' ');
        self.file.write_all_at(&text, 0)
    }
}

/// The counts of the agent that is this process; none when it serves no names, or may not be looked into.
pub fn of_agent(pid: u32) -> Option<Counts> {
    let file = find(pid)?;
    (0..TRIES).find_map(|_| serde_json::from_slice(&fs::read(&file).ok()?).ok())
}

fn find(pid: u32) -> Option<PathBuf> {
    let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().map(|entry| entry.path());
    let target = format!("/memfd:{NAME} (deleted)");
    files.find(|file| fs::read_link(file).is_ok_and(|link| link.as_os_str() == OsStr::new(&target)))
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// A few names, whatever clients ask for.
fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CNAME => "CNAME",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_process_are_found() {
        let counters = Counters::new(vec!["127.0.0.1:53".parse().unwrap()]).unwrap();
        let mut counts = Counts { listen: vec!["127.0.0.1:53".parse().unwrap()], ..Counts::default() };
        assert_eq!(of_agent(std::process::id()), Some(counts.clone()));
        counters.lock().ignored = 123_456;
        counters.publish().unwrap();
        counts.ignored = 123_456;
        assert_eq!(of_agent(std::process::id()), Some(counts.clone()));
        // Shorter than before.
        counters.lock().ignored = 1;
        counters.publish().unwrap();
        counts.ignored = 1;
        assert_eq!(of_agent(std::process::id()), Some(counts));
        drop(counters);
        assert_eq!(of_agent(std::process::id()), None);
    }
}
