//! What can go wrong with a map, on which entry, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use lb_common::tables::{Kind, SPECS, Table};

/// What [`MapError::Shape`] calls the number of entries.
pub(super) const ENTRIES: &str = "entries";

/// What to do about EPERM.
const RIGHTS: &str = ": run as root, or with CAP_BPF and CAP_NET_ADMIN";

/// What was being done to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Write an entry.
    Update,
    /// Remove an entry.
    Delete,
    /// Read an entry.
    Lookup,
    /// Read all entries.
    Scan,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Update => "write",
            Self::Delete => "remove",
            Self::Lookup => "look up",
            Self::Scan => "read",
        })
    }
}

/// A map operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel, or the store in its place, refused.
    #[error("cannot {operation} {key} in table {table}: {source}{}", advice(*.table_id, source))]
    Refused {
        /// What was tried.
        operation: Operation,
        /// Name of the table.
        table: &'static str,
        /// The table.
        table_id: Table,
        /// The entry, for people.
        key: String,
        /// The reason.
        source: io::Error,
    },
    /// A map could not be made.
    #[error(
        "cannot make table {} with {entries} entries of {} bytes: {source}{}",
        .table.spec().name,
        .table.spec().key_size + .table.spec().value_size,
        create_advice(*.table, source)
    )]
    Create {
        /// The table.
        table: Table,
        /// How many entries it was to have.
        entries: u32,
        /// The reason.
        source: io::Error,
    },
    /// Bytes that do not fit the table.
    #[error(
        "cannot {operation} in table {table}: {key_bytes} bytes of keys and {value_bytes} of values do not fit it"
    )]
    Length {
        /// What was tried.
        operation: Operation,
        /// Name of the table.
        table: &'static str,
        /// Bytes of keys given.
        key_bytes: usize,
        /// Bytes of values given.
        value_bytes: usize,
    },
    /// A pinned map could not be opened.
    #[error("cannot open the pinned map {}: {source}{}", .path.display(), open_advice(source))]
    Open {
        /// Where it was looked for.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A map has another layout than this program.
    #[error(
        "map {table} has {what} {found}, this program needs {expected}: {}; `lb detach` removes it and the \
         connections it carries",
        shape_advice(table, what, *found)
    )]
    Shape {
        /// Name of the table.
        table: &'static str,
        /// Which property differs.
        what: &'static str,
        /// As found.
        found: u32,
        /// As needed.
        expected: u32,
    },
    /// The store was opened without this table.
    #[error("table {table} was not opened")]
    Missing {
        /// Name of the table.
        table: &'static str,
    },
}

impl MapError {
    pub(super) fn refused(operation: Operation, table: Table, key: &[u8], source: io::Error) -> Self {
        Self::Refused {
            operation,
            table: table.spec().name,
            table_id: table,
            key: super::render_key(table, key),
            source,
        }
    }

    /// The kernel's number of what is wrong with one entry.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the table has no room left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Refused { table_id, source, .. } if is_full(*table_id, source))
    }
}

fn is_full(table: Table, source: &io::Error) -> bool {
    // A hash says E2BIG; a trie ENOSPC; both may be out of preallocated elements with ENOMEM.
    matches!(table.spec().kind, Kind::Hash | Kind::LruHash | Kind::LpmTrie | Kind::DeviceHash)
        && matches!(source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

fn advice(table: Table, source: &io::Error) -> String {
    if is_full(table, source) {
        format!(": the table is full, make it larger with {}", crate::plan::size_option(table))
    } else if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        RIGHTS.to_owned()
    } else {
        String::new()
    }
}

fn create_advice(table: Table, source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::E2BIG | libc::ENOMEM | libc::EINVAL) => {
            format!(
                ": more than the kernel has memory for; make it smaller with {}",
                crate::plan::size_option(table)
            )
        }
        Some(libc::EPERM | libc::EACCES) => RIGHTS.to_owned(),
        _ => String::new(),
    }
}

fn shape_advice(table: &str, what: &str, found: u32) -> String {
    match SPECS.iter().find(|spec| spec.name == table) {
        Some(spec) if what == ENTRIES => {
            format!(
                "it was made with other options, {} {found} keeps it",
                crate::plan::size_option(spec.table)
            )
        }
        _ => "it was made by another version".to_owned(),
    }
}

fn open_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT) => {
            ": something is missing there; `lb detach` clears the directory, `lb run` fills it"
        }
        Some(libc::EPERM | libc::EACCES) => ": run as root, or with CAP_BPF",
        _ => "",
    }
}
