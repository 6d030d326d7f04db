//! Memory that is not needed goes back to the kernel.

/// Blocks of this many bytes and more get pages of their own, which go back as soon as they are freed. It is the C library's own
/// value, but that one grows with the largest block that was ever freed.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 128 * 1024;

/// To be called once, before there is much.
pub(super) fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number within the allocator; may be called at any time.
    let _supported = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES) };
}

/// Gives back what was freed. To be called after something large is done: it takes some milliseconds.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: looks through free blocks under the allocator's own locks; may be called at any time.
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Gives back the pages of something that the program file holds; should they be needed again, they are read again.
pub(super) fn give_back_file(bytes: &'static [u8]) {
    const PAGE: usize = 4096;
    let start = bytes.as_ptr().addr().next_multiple_of(PAGE) - bytes.as_ptr().addr();
    let Some(pages) = bytes.get(start..).map(|rest| &rest[..rest.len() - rest.len() % PAGE]) else { return };
    if !pages.is_empty() {
        // SAFETY: whole pages of a constant: nobody has changed them, and a reader finds in them what the file holds.
        let _hint =
            unsafe { libc::madvise(pages.as_ptr().cast_mut().cast(), pages.len(), libc::MADV_DONTNEED) };
    }
}
