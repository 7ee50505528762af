//! The sandbox of a pod: holds its namespaces, reaps what is left to it, and ends on SIGTERM or SIGINT.
#![no_std]
#![no_main]
#![no_builtins]
#![allow(dead_code)]

mod sys;

const SIGCHLD: u64 = 17;
const WNOHANG: usize = 1;

fn run(_environment: *const *const u8) -> ! {
    let signals = sys::set_of(sys::SIGTERM) | sys::set_of(sys::SIGINT) | sys::set_of(SIGCHLD);
    sys::block(signals);
    loop {
        let signal = sys::call(sys::nr::SIGTIMEDWAIT, &raw const signals as usize, 0, 0, 8, 0);
        if signal == sys::SIGTERM as isize || signal == sys::SIGINT as isize {
            sys::exit(0);
        }
        while sys::call(sys::nr::WAIT4, usize::MAX, 0, WNOHANG, 0, 0) > 0 {}
    }
}
