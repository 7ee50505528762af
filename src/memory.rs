//! What a long-running process does about its memory: the kernel keeps more of it resident than is used.

use std::ffi::c_void;
use std::time::Duration;

/// By then a process has started.
const FIRST: Duration = Duration::from_secs(15);
/// What a busy time needed is not needed for ever.
const EVERY: Duration = Duration::from_secs(300);

/// Pages of 2 MiB, for which the allocator asks, are filled in part by an idle process: 30 MiB more of memory for no more speed.
pub fn without_huge_pages() {
    // SAFETY: sets a flag of this process and touches no memory. A kernel without it refuses, which costs memory only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives the program's own code back to the page cache now and then. Starting runs through most of it, an idle process
/// through little; what is run next is mapped again from the cache without a read.
pub async fn give_back_code() {
    let mut times = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, EVERY);
    loop {
        times.tick().await;
        // SAFETY: the callback gets valid headers, does not keep them, and stops at the first object, the program itself.
        unsafe { libc::dl_iterate_phdr(Some(give_back_segments), std::ptr::null_mut()) };
    }
}

/// # Safety
/// As `dl_iterate_phdr` calls it.
unsafe extern "C" fn give_back_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> i32 {
    // SAFETY: valid during the call, by the contract of `dl_iterate_phdr`.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    // SAFETY: asks a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page @ 1..) = u64::try_from(page) else { return 1 };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        // Never written: what the file holds is what is mapped again.
        if header.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X {
            let start = (base + header.p_vaddr).next_multiple_of(page);
            let end = (base + header.p_vaddr + header.p_memsz) / page * page;
            // SAFETY: whole pages of a private mapping of a file that nobody writes to; they come back as they were.
            unsafe { libc::madvise(start as *mut c_void, (end - start) as usize, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #[tokio::test(start_paused = true)]
    async fn the_program_runs_on_without_its_code() {
        let given_back = tokio::spawn(super::give_back_code());
        tokio::time::sleep(super::FIRST + 2 * super::EVERY).await;
        assert!(!given_back.is_finished());
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
    }
}
