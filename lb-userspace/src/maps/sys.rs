//! bpf(2) on map descriptors. The only file of the map layer with `unsafe` code: it hands out a [`Map`] whose sizes come
//! from the kernel itself, and checks every buffer against them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lb_common::tables::Kind;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

// Commands of bpf(2), `enum bpf_cmd` in linux/bpf.h.
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;
const LINK_UPDATE: u32 = 29;
const LINK_DETACH: u32 = 34;

/// `BPF_F_NO_PREALLOC`, which tries demand.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`, for the alignment that comes with it.
const MMAPABLE: u32 = 1 << 10;

/// `union bpf_attr` for commands on one entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct EntryAttr {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for batches.
#[repr(C)]
#[derive(Clone, Copy)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr` for pins.
#[repr(C)]
#[derive(Clone, Copy)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DetachAttr {
    fd: u32,
    pad: u32,
}

/// `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Clone, Copy)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// The head of `struct bpf_map_info`; older kernels fill less, newer ones are told our size.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `struct bpf_link_info` for links to an interface (XDP since 5.9, tcx since 6.6).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    /// To a cgroup: the lower half of its number, upper half behind.
    ifindex: u32,
    cgroup_upper: u32,
    attach_type: u32,
    tail: u32,
}

/// What the kernel says about a link of a program to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLinkInfo {
    /// Number of the link; stays when its program is exchanged.
    pub id: u32,
    /// Number of the program in it.
    pub program_id: u32,
    /// Number of the cgroup, the inode number of its directory; 0 when the cgroup has gone and the link is void.
    pub cgroup: u64,
}

/// What the kernel says about a link of a program to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Number of the link; stays when its program is exchanged.
    pub id: u32,
    /// Number of the program in it.
    pub program_id: u32,
    /// The interface's index in its network namespace; 0 when the interface has gone and the link is void.
    pub ifindex: u32,
}

/// Plain `repr(C)` structs without implicit padding, as bpf(2) reads them.
///
/// # Safety
/// Implementors hold integers only, and every address in them is set by this module to a live buffer of the size that the
/// command reads or writes.
unsafe trait Attr: Copy {}
// SAFETY: integers only; the fields fill the struct (8-byte fields lie at multiples of 8).
unsafe impl Attr for EntryAttr {}
// SAFETY: as above.
unsafe impl Attr for BatchAttr {}
// SAFETY: as above.
unsafe impl Attr for PinAttr {}
// SAFETY: as above.
unsafe impl Attr for InfoAttr {}
// SAFETY: as above.
unsafe impl Attr for CreateAttr {}
// SAFETY: as above.
unsafe impl Attr for DetachAttr {}
// SAFETY: as above.
unsafe impl Attr for UpdateAttr {}

/// # Safety
/// The addresses in `attr` point to buffers that live through the call and are as large as `command` reads or writes.
unsafe fn bpf<T: Attr>(command: u32, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live struct of the size given; its addresses are the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, libc::c_long::from(command), attr as *mut T, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the command just gave this descriptor to us, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(buffer: &[u8]) -> u64 {
    buffer.as_ptr() as u64
}

fn address_mut(buffer: &mut [u8]) -> u64 {
    buffer.as_mut_ptr() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// `BPF_MAP_TYPE_*` of a kind.
const fn number_of(kind: Kind) -> u32 {
    match kind {
        Kind::Hash => 1,
        Kind::Array | Kind::PageArray => 2,
        Kind::PerCpuArray => 6,
        Kind::LruHash => 9,
        Kind::LpmTrie => 11,
        Kind::DeviceHash => 25,
    }
}

/// Opens what is pinned.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: `path` is a live C string.
    new_fd(unsafe { bpf(OBJ_GET, &mut attr)? })
}

/// Looks at a pinned link to an interface.
///
/// # Errors
/// The kernel's: not there, no permission.
pub fn link_info(path: &Path) -> io::Result<LinkInfo> {
    let info = raw_link_info(path)?;
    Ok(LinkInfo { id: info.id, program_id: info.program_id, ifindex: info.ifindex })
}

/// Looks at a pinned link to a cgroup (kernel 5.8).
///
/// # Errors
/// The kernel's: not there, no permission.
pub fn cgroup_link_info(path: &Path) -> io::Result<CgroupLinkInfo> {
    let info = raw_link_info(path)?;
    let halves = [info.ifindex, info.cgroup_upper];
    Ok(CgroupLinkInfo { id: info.id, program_id: info.program_id, cgroup: bytemuck::cast(halves) })
}

fn raw_link_info(path: &Path) -> io::Result<RawLinkInfo> {
    let fd = open(path)?;
    let mut info = RawLinkInfo::default();
    let mut attr = InfoAttr {
        fd: raw(fd.as_fd()),
        length: size_of::<RawLinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` lives on and has the length given; the kernel fills no more, whatever the object.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

/// Puts another program into a pinned link: one atomic exchange (kernel 5.7).
///
/// # Errors
/// The kernel's: not there, void, a program of another kind.
pub fn update_link(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let fd = open(path)?;
    let mut attr = UpdateAttr { link: raw(fd.as_fd()), program: raw(program), flags: 0, old_program: 0 };
    // SAFETY: no addresses in it.
    unsafe { bpf(LINK_UPDATE, &mut attr)? };
    Ok(())
}

/// Takes the program of a pinned link off its interface at once. Removing the pin alone does it some time later.
///
/// # Errors
/// The kernel's: not there, no permission, older than 5.9.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let fd = open(path)?;
    let mut attr = DetachAttr { fd: raw(fd.as_fd()), pad: 0 };
    // SAFETY: no addresses in it.
    unsafe { bpf(LINK_DETACH, &mut attr)? };
    Ok(())
}

/// What the kernel says about a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU's for per-CPU maps.
    pub value_size: u32,
    /// Room for so many entries.
    pub max_entries: u32,
}

impl Shape {
    /// `BPF_MAP_TYPE_*` of a kind of table.
    pub const fn kind_number(kind: Kind) -> u32 {
        number_of(kind)
    }

    /// Whether every CPU has values of its own (`BPF_MAP_TYPE_PERCPU_HASH`, `_PERCPU_ARRAY`, `_LRU_PERCPU_HASH`).
    const fn is_per_cpu(self) -> bool {
        matches!(self.kind, 5 | 6 | 10)
    }
}

/// A map in the kernel.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    shape: Shape,
    /// Bytes of a value as bpf(2) reads and writes it: all CPUs' values for per-CPU maps.
    stride: usize,
}

/// How far a batch of reads has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    position: Vec<u8>,
    started: bool,
}

impl Map {
    /// Takes over a descriptor of a map.
    ///
    /// # Errors
    /// The kernel's, also when it is no map's descriptor.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut info = Info::default();
        let mut attr = InfoAttr {
            fd: raw(fd.as_fd()),
            length: size_of::<Info>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        // SAFETY: `info` lives on and has the length given. Descriptors of other objects (programs, links) fill no more
        // than that either.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
        let shape = Shape {
            kind: info.kind,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
        };
        let stride = if shape.is_per_cpu() {
            (shape.value_size as usize).next_multiple_of(8) * possible_cpus()?
        } else {
            shape.value_size as usize
        };
        let map = Self { fd, shape, stride };
        // A descriptor of a program or a link also has information, of another meaning. Ask for something only
        // a map can do. Keys are at most 512 bytes (the kernel's MAX_BPF_STACK).
        if shape.key_size > 512 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut next = vec![0; shape.key_size.max(4) as usize];
        match map.next_key(None, &mut next[..shape.key_size as usize]) {
            Ok(_) => Ok(map),
            Err(error) => Err(error),
        }
    }

    /// Opens a pinned map.
    ///
    /// # Errors
    /// The kernel's: not there, no permission, not a map.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_fd(open(path)?)
    }

    /// Makes a map.
    ///
    /// # Errors
    /// The kernel's: no permission, no memory.
    pub fn create(
        name: &str,
        kind: Kind,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> io::Result<Self> {
        let mut attr = CreateAttr {
            kind: number_of(kind),
            key_size,
            value_size,
            max_entries,
            flags: match kind {
                Kind::LpmTrie => NO_PREALLOC,
                Kind::PageArray => MMAPABLE,
                _ => 0,
            },
            inner_fd: 0,
            numa_node: 0,
            name: [0; 16],
        };
        for (to, from) in attr.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: no addresses in it.
        let mut create = || unsafe { bpf(MAP_CREATE, &mut attr) };
        let fd = match create() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && lift_locked_memory() => create(),
            outcome => outcome,
        }?;
        Self::from_fd(new_fd(fd)?)
    }

    /// Pins the map in a bpffs.
    ///
    /// # Errors
    /// The kernel's: the name is taken, not a bpffs.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        let mut attr = PinAttr { path: path.as_ptr() as u64, fd: raw(self.fd.as_fd()), flags: 0 };
        // SAFETY: `path` is a live C string.
        unsafe { bpf(OBJ_PIN, &mut attr)? };
        Ok(())
    }

    /// What the kernel says about it.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of a value as read and written: for per-CPU maps those of all CPUs.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    fn check(&self, keys: &[u8], values: Option<&[u8]>, count: usize) -> io::Result<()> {
        let fits = keys.len() == count * self.shape.key_size as usize
            && values.is_none_or(|values| values.len() == count * self.stride);
        if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    fn entry(&self, key: u64, value: u64) -> EntryAttr {
        EntryAttr { fd: raw(self.fd.as_fd()), pad: 0, key, value, flags: 0 }
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// The kernel's, and EINVAL when key or value have another length than the map's.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value), 1)?;
        // SAFETY: the sizes of both buffers were checked; the kernel only reads them.
        unsafe { bpf(MAP_UPDATE, &mut self.entry(address(key), address(value)))? };
        Ok(())
    }

    pub(super) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.check(key, None, 1)?;
        // SAFETY: the size of the key was checked; the kernel only reads it.
        unsafe { bpf(MAP_DELETE, &mut self.entry(address(key), 0))? };
        Ok(())
    }

    /// False: no such entry.
    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value), 1)?;
        // SAFETY: the sizes of both buffers were checked; the kernel writes to `value` only.
        found(unsafe { bpf(MAP_LOOKUP, &mut self.entry(address(key), address_mut(value))) })
    }

    /// False: no further entry.
    pub(super) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        self.check(next, None, 1)?;
        if let Some(key) = key {
            self.check(key, None, 1)?;
        }
        let mut attr = self.entry(key.map_or(0, address), address_mut(next));
        // SAFETY: the sizes of both buffers were checked; the kernel writes to `next` only.
        found(unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) })
    }

    /// Writes `count` entries; on failure says how many were written.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_batch(&self, keys: &[u8], values: &[u8], count: usize) -> Result<(), (usize, io::Error)> {
        self.check(keys, Some(values), count).map_err(|error| (0, error))?;
        let mut attr = self.batch(address(keys), address(values), count);
        // SAFETY: the sizes of both buffers were checked; the kernel only reads them.
        match unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) } {
            Ok(_) => Ok(()),
            Err(error) => Err((done(attr, count), error)),
        }
    }

    /// Removes `count` entries; on failure says how many were removed.
    pub(super) fn delete_batch(&self, keys: &[u8], count: usize) -> Result<(), (usize, io::Error)> {
        self.check(keys, None, count).map_err(|error| (0, error))?;
        let mut attr = self.batch(address(keys), 0, count);
        // SAFETY: the size of the keys was checked; the kernel only reads them.
        match unsafe { bpf(MAP_DELETE_BATCH, &mut attr) } {
            Ok(_) => Ok(()),
            Err(error) => Err((done(attr, count), error)),
        }
    }

    /// Reads up to as many entries as fit into the buffers (`count` keys and values), from where `cursor` stands. Gives their number and
    /// whether that was the end.
    pub(super) fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        count: usize,
    ) -> io::Result<(usize, bool)> {
        self.check(keys, Some(values), count)?;
        // A hash keeps a bucket number (4 bytes) here, all others a key.
        let mut next = vec![0; self.shape.key_size.max(8) as usize];
        let mut attr = self.batch(address_mut(keys), address_mut(values), count);
        attr.in_batch = if cursor.started { address(&cursor.position) } else { 0 };
        attr.out_batch = address_mut(&mut next);
        // SAFETY: the sizes of keys and values were checked against `count`; both positions are as large as a key and
        // as a bucket number.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let read = (attr.count as usize).min(count);
        match result {
            Ok(_) => {
                *cursor = Cursor { position: next, started: true };
                Ok((read, false))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((read, true)),
            Err(error) => Err(error),
        }
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count as u32,
            fd: raw(self.fd.as_fd()),
            elem_flags: 0,
            flags: 0,
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many entries a batch has done that failed. A kernel that does not know the command for this kind of map leaves the number
/// as it was given (5.10, tries), and one that gets to the last entry does not fail.
fn done(attr: BatchAttr, count: usize) -> usize {
    let done = attr.count as usize;
    if done < count { done } else { 0 }
}

/// Lifts this process's limit of locked memory, to which kernels before 5.11 count maps; they answer EPERM beyond it. Whether
/// there was one, and it could be lifted.
pub fn lift_locked_memory() -> bool {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    !unlimited && setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok()
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn found(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// CPUs that per-CPU maps hold a value for.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    parse_cpus(text.trim()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Counts a list such as `0-3,8`.
fn parse_cpus(text: &str) -> Option<usize> {
    let mut count = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::parse_cpus;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0"), Some(1));
        assert_eq!(parse_cpus("0-1"), Some(2));
        assert_eq!(parse_cpus("0-3,8-11"), Some(8));
        assert_eq!(parse_cpus(""), None);
        assert_eq!(parse_cpus("a-b"), None);
    }
}
