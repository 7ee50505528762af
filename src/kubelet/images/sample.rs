//! The sample application: answers every HTTP request with its version and the pod's name, and writes an access log.
//!
//! `PORT` (8080) is where it listens; `EXIT_AFTER` (seconds) makes it end with code 1, `/exit` does so at once, `/healthz` says ok.
#![no_std]
#![no_main]
#![no_builtins]
#![allow(dead_code)]

mod sys;

use sys::{call, nr};

const VERSION: &str = env!("HACTL_SAMPLE_VERSION");
/// Milliseconds a client may take to send its request.
const PATIENCE_MS: i64 = 2000;

struct Text {
    bytes: [u8; 1024],
    length: usize,
}

impl Text {
    fn new() -> Text {
        Text { bytes: [0; 1024], length: 0 }
    }
    fn add(&mut self, text: &[u8]) -> &mut Text {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
        self
    }
    fn number(&mut self, mut number: usize) -> &mut Text {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            if let Some(place) = digits.get_mut(at) {
                *place = b'0' + (number % 10) as u8;
            }
            number /= 10;
            if number == 0 || at == 0 {
                break;
            }
        }
        self.add(digits.get(at..).unwrap_or(&[]))
    }
    fn send(&self, file: usize) {
        let mut sent = 0;
        while sent < self.length {
            let wrote = call(nr::WRITE, file, self.bytes.as_ptr() as usize + sent, self.length - sent, 0, 0);
            if wrote <= 0 {
                return;
            }
            sent += wrote as usize;
        }
    }
}

fn fail(what: &str) -> ! {
    Text::new().add(b"sample: ").add(what.as_bytes()).add(b" failed\n").send(2);
    sys::exit(1)
}

/// The decimal number in the environment variable.
fn number(environment: *const *const u8, name: &[u8]) -> Option<usize> {
    let mut entry = environment;
    loop {
        let text = unsafe { *entry };
        if text.is_null() {
            return None;
        }
        let mut at = 0;
        while at < name.len() && unsafe { *text.add(at) } == name[at] {
            at += 1;
        }
        if at == name.len() {
            let mut value = 0_usize;
            loop {
                let digit = unsafe { *text.add(at) };
                if !digit.is_ascii_digit() {
                    return Some(value);
                }
                value = value.wrapping_mul(10).wrapping_add(usize::from(digit - b'0'));
                at += 1;
            }
        }
        entry = unsafe { entry.add(1) };
    }
}

#[repr(C)]
struct Poll {
    file: i32,
    events: i16,
    happened: i16,
}

/// Waits until one of the files can be read; which one, or nothing after the time.
fn wait(files: [usize; 2], milliseconds: i64) -> Option<usize> {
    let mut polls = files.map(|file| Poll { file: file as i32, events: 1, happened: 0 });
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let time = if milliseconds < 0 { 0 } else { &raw const time as usize };
    call(nr::PPOLL, &raw mut polls as usize, 2, time, 0, 8);
    polls.iter().find(|poll| poll.happened != 0).map(|poll| poll.file as usize)
}

fn hostname(text: &mut Text) {
    let mut uts = [0_u8; 65 * 6];
    call(nr::UNAME, uts.as_mut_ptr() as usize, 0, 0, 0, 0);
    for byte in uts.iter().skip(65).take(65).take_while(|byte| **byte != 0) {
        text.add(&[*byte]);
    }
}

fn answer(client: usize, signals: usize, from: &[u8]) {
    let mut request = [0_u8; 2048];
    let mut length = 0;
    loop {
        match wait([signals, client], PATIENCE_MS) {
            Some(file) if file == signals => sys::exit(0),
            Some(_) => {}
            None => return,
        }
        let got = call(nr::READ, client, request.as_mut_ptr() as usize + length, request.len() - length, 0, 0);
        if got <= 0 {
            return;
        }
        length += got as usize;
        let read = request.get(..length).unwrap_or(&[]);
        if length == request.len() || read.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let read = request.get(..length).unwrap_or(&[]);
    let mut words = read.split(|byte| *byte == b' ' || *byte == b'\r');
    let method = words.next().unwrap_or(b"-");
    let path = words.next().unwrap_or(b"-");
    let mut page = Text::new();
    if path == b"/healthz" {
        page.add(b"ok\n");
    } else {
        page.add(b"hactl sample, version ").add(VERSION.as_bytes()).add(b", pod ");
        hostname(&mut page);
        page.add(b"\n");
    }
    let mut response = Text::new();
    response
        .add(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ")
        .number(page.length)
        .add(b"\r\n\r\n");
    if method != b"HEAD" {
        response.add(page.bytes.get(..page.length).unwrap_or(&[]));
    }
    response.send(client);
    let mut log = Text::new();
    for (at, byte) in from.iter().enumerate() {
        if at > 0 {
            log.add(b".");
        }
        log.number(usize::from(*byte));
    }
    log.add(b" ").add(method).add(b" ").add(path).add(b" 200\n").send(1);
    if path == b"/exit" {
        sys::exit(1);
    }
}

fn run(environment: *const *const u8) -> ! {
    let mask = sys::set_of(sys::SIGTERM) | sys::set_of(sys::SIGINT);
    sys::block(mask);
    let signals = call(nr::SIGNALFD4, usize::MAX, &raw const mask as usize, 8, 0, 0);
    let port = number(environment, b"PORT=").unwrap_or(8080) as u16;
    let listener = call(nr::SOCKET, 2, 1, 0, 0, 0);
    if signals < 0 || listener < 0 {
        fail("socket");
    }
    let (signals, listener) = (signals as usize, listener as usize);
    let one = 1_i32;
    call(nr::SETSOCKOPT, listener, 1, 2, &raw const one as usize, 4);
    let mut address = [0_u8; 16];
    address[0] = 2;
    address[2..4].copy_from_slice(&port.to_be_bytes());
    if call(nr::BIND, listener, address.as_ptr() as usize, 16, 0, 0) < 0 || call(nr::LISTEN, listener, 128, 0, 0, 0) < 0 {
        fail("listening");
    }
    let mut hello = Text::new();
    hello.add(b"sample version ").add(VERSION.as_bytes()).add(b" listening on port ").number(usize::from(port)).add(b"\n").send(1);
    let patience = number(environment, b"EXIT_AFTER=").map_or(-1, |seconds| seconds as i64 * 1000);
    loop {
        match wait([signals, listener], patience) {
            None if patience >= 0 => sys::exit(1),
            None => continue,
            Some(file) if file == signals => sys::exit(0),
            Some(_) => {}
        }
        let mut length = 16_u32;
        let client = call(nr::ACCEPT4, listener, address.as_mut_ptr() as usize, &raw mut length as usize, 0, 0);
        if client >= 0 {
            let from = [address[4], address[5], address[6], address[7]];
            answer(client as usize, signals, &from);
            call(nr::CLOSE, client as usize, 0, 0, 0, 0);
        }
    }
}
