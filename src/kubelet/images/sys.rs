//! The few system calls of the image programs, and what a program without libc must bring itself.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const SIGPROCMASK: usize = 14;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const SETSOCKOPT: usize = 54;
    pub const EXIT_GROUP: usize = 231;
    pub const UNAME: usize = 63;
    pub const WAIT4: usize = 61;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const PPOLL: usize = 271;
    pub const ACCEPT4: usize = 288;
    pub const SIGNALFD4: usize = 289;
}
#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const SIGPROCMASK: usize = 135;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const SETSOCKOPT: usize = 208;
    pub const EXIT_GROUP: usize = 94;
    pub const UNAME: usize = 160;
    pub const WAIT4: usize = 260;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const PPOLL: usize = 73;
    pub const ACCEPT4: usize = 242;
    pub const SIGNALFD4: usize = 74;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {run}", "ud2", run = sym start);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {run}", "brk #1", run = sym start);

/// `stack` holds argc, the arguments, a null, the environment, a null.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    let environment = unsafe { stack.add(*stack + 2) }.cast::<*const u8>();
    crate::run(environment)
}

/// A system call; the answer is negative for an error.
pub fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => answer, in("x1") b, in("x2") c, in("x3") d, in("x4") e, options(nostack));
    }
    answer
}

pub fn exit(code: usize) -> ! {
    loop {
        call(nr::EXIT_GROUP, code, 0, 0, 0, 0);
    }
}

pub const SIGINT: u64 = 2;
pub const SIGTERM: u64 = 15;

/// A blocked signal is kept even for process 1, which has no default actions.
pub fn block(signals: u64) {
    call(nr::SIGPROCMASK, 0, &raw const signals as usize, 0, 8, 0);
}

pub const fn set_of(signal: u64) -> u64 {
    1 << (signal - 1)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(101)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    let mut at = 0;
    while at < length {
        unsafe { *to.add(at) = *from.add(at) };
        at += 1;
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    let mut at = 0;
    while at < length {
        unsafe { *to.add(at) = value as u8 };
        at += 1;
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    let mut at = 0;
    while at < length {
        let (x, y) = unsafe { (*a.add(at), *b.add(at)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}
