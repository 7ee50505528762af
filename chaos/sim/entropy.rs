//! What no seam closes. The wall clock that kubelets read ([`clock_gettime`]), and the keys of std's hash maps, from which tokio also takes the order in which `select!`
//! looks at its branches. std asks the symbol `getrandom` for them and lets a program put its own in place, which this does.
//!
//! **Invariant:** before [`begin`] the system answers, afterwards the seed alone, for the rest of the process: one process,
//! one simulation.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The state of the generator; 0: not begun.
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on this process knows no randomness but `seed`. Threads that asked before keep what they got, so the
/// simulation runs on a thread that is started afterwards.
pub fn begin(seed: u64) {
    STATE.store(seed | 1 << 63, Ordering::SeqCst);
}

/// # Safety
/// As `getrandom(2)`: `buffer` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if STATE.load(Ordering::SeqCst) == 0 {
        // SAFETY: the caller's promise is the system call's own condition.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    }
    for at in 0..length {
        let number = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
        let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        // SAFETY: `at` is below `length`.
        unsafe { buffer.add(at).write((mixed >> 56) as u8) };
    }
    length as isize
}

thread_local! {
    /// Since when the wall clock of this thread goes with virtual time.
    static VIRTUAL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// 2026-01-01, when every simulation begins.
const BEGIN_SECONDS: i64 = 1_767_225_600;

pub fn begins() -> jiff::Timestamp {
    jiff::Timestamp::from_second(BEGIN_SECONDS).unwrap_or_default()
}

/// From now on the wall clock of this thread, which must be within its paused runtime, goes with tokio's.
pub fn begin_time() {
    VIRTUAL.set(Some(Instant::now()));
}

/// What this thread has taken of a core so far.
pub fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` can be written to.
    unsafe { clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

unsafe extern "C" fn by_system_call(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's promise is the system call's own condition.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// The C library's own, which asks the kernel without a system call: tokio reads a clock at every turn of its loop.
fn system_clock() -> ClockGettime {
    static FOUND: OnceLock<ClockGettime> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a name that ends with a zero byte; what is found under it has this type.
        unsafe {
            let found = libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr());
            if found.is_null() { by_system_call } else { std::mem::transmute::<*mut libc::c_void, ClockGettime>(found) }
        }
    })
}

/// Kubelets stamp their reports with the wall clock itself.
///
/// # Safety
/// As `clock_gettime(2)`: `time` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let began = if clock == libc::CLOCK_REALTIME { VIRTUAL.try_with(Cell::get).ok().flatten() } else { None };
    let Some(began) = began else {
        // SAFETY: the caller's promise is that of the function this one stands before.
        return unsafe { system_clock()(clock, time) };
    };
    let since = began.elapsed();
    let now =
        libc::timespec { tv_sec: BEGIN_SECONDS + since.as_secs() as i64, tv_nsec: i64::from(since.subsec_nanos()) };
    // SAFETY: the caller's promise.
    unsafe { time.write(now) };
    0
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    /// In a process of its own: [`super::begin`] is for ever.
    #[test]
    fn hash_keys_follow_the_seed() {
        if std::env::var_os("CHAOS_ENTROPY").is_some() {
            super::begin(7);
            println!("key {}", std::thread::spawn(|| RandomState::new().hash_one(1)).join().expect("no panic"));
            return;
        }
        let ask = || {
            let program = std::env::current_exe().expect("this program");
            let arguments = ["--exact", "sim::entropy::tests::hash_keys_follow_the_seed", "--nocapture"];
            let output = std::process::Command::new(program).args(arguments).env("CHAOS_ENTROPY", "1").output();
            let output = String::from_utf8(output.expect("it runs").stdout).expect("text");
            let at = output.find("key ").expect("it printed");
            output[at..].lines().next().map(str::to_owned)
        };
        assert_eq!(ask(), ask());
    }
}
