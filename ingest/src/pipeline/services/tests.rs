use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use tidemill_storage::clock::ManualClock;

use super::*;

/// Answers GET /order/<key> by a function of the key and of how often anything was asked. Every connection is closed after two answers, without a word of it before.
fn server(answer: fn(&str, u32) -> (u16, String)) -> (Address, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&format!("http://{}/order/", listener.local_addr().unwrap()), None).unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                for _ in 0..2 {
                    let mut first = String::new();
                    if reader.read_line(&mut first).unwrap_or(0) == 0 {
                        return;
                    }
                    let mut line = String::new();
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        line.clear();
                    }
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = answer(path.strip_prefix("/order/").unwrap_or(&path), number);
                    let length = body.len();
                    let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
                }
            });
        }
    });
    (address, asked)
}

fn service(address: &Address, clock: &Arc<ManualClock>, options: ServiceOptions) -> HttpService {
    HttpService::new(address.clone(), options, Arc::clone(clock) as Arc<dyn Clock>, || false).unwrap()
}

fn ask(service: &HttpService, keys: &[&str]) -> Result<Vec<Said>> {
    service.ask(&StringViewArray::from_iter_values(keys))
}

fn body(text: &str) -> Said {
    Said::Body(text.into())
}

#[test]
fn answers_mean_what_their_status_says_and_are_kept() {
    let (address, asked) = server(|key, _| match key {
        "a%20%2F%C3%A9" => (200, "{\"of\":1,\"a\": [1.50,\"x\"]}".into()),
        "gone" => (404, "no".into()),
        "bad" => (422, "no".into()),
        "text" => (200, "hello".into()),
        "long" => (200, format!("\"{}\"", "x".repeat(BODY_BYTES_MAX))),
        other => (200, format!("\"body of {other}\"")),
    });
    let clock = Arc::new(ManualClock::at(0));
    let service = service(&address, &clock, ServiceOptions { tries: 1, ..ServiceOptions::default() });
    for _ in 0..2 {
        let said = ask(&service, &["a /é", "gone", "bad", "b", "text", "long"]).unwrap();
        assert_eq!(said[0], body(r#"{"a": [1.50, "x"], "of": 1}"#), "as documents are kept");
        assert_eq!(said[1], Said::Nothing);
        assert_eq!(said[2], Said::Refused("with status 422".into()));
        assert_eq!(said[3], body("\"body of b\""));
        assert!(matches!(&said[4], Said::Refused(reason) if reason.contains("no JSON")), "{said:?}");
        assert!(matches!(&said[5], Said::Refused(reason) if reason.contains("256 kB")), "{said:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 6, "each is asked once");
    }
    clock.advance_us(ServiceOptions::default().cache_ttl_us);
    ask(&service, &["b"]).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 7, "what is old is asked again");
}

#[test]
fn a_service_that_fails_is_asked_again_and_then_left_alone_for_a_while() {
    let (address, asked) = server(|key, number| match number {
        2..5 => (200, format!("\"{key}\"")),
        ..20 => (500, String::new()),
        _ => (200, "\"again\"".into()),
    });
    let clock = Arc::new(ManualClock::at(0));
    let service = service(&address, &clock, ServiceOptions { concurrency: 1, ..ServiceOptions::default() });
    let count = || asked.load(Ordering::SeqCst);
    assert_eq!(ask(&service, &["a", "b", "c"]).unwrap(), [body("\"a\""), body("\"b\""), body("\"c\"")]);
    assert_eq!(count(), 5, "the first has its answer at the third try");
    for failed in 1..=FAILURES_MAX {
        let error = ask(&service, &["a", "d", "e"]).unwrap_err().to_string();
        assert!(error.contains("status 500") && error.contains(&address.to_string()), "{error}");
        assert_eq!(count(), 5 + 3 * failed, "the rest is not asked for when one fails");
    }
    let error = ask(&service, &["d"]).unwrap_err().to_string();
    assert!(error.contains("not asked for 5 s"), "{error}");
    assert_eq!(ask(&service, &["b"]).unwrap(), [body("\"b\"")], "what is known is");
    assert_eq!(count(), 14, "it is open");
    clock.advance_us(OPEN_FOR_US);
    ask(&service, &["d", "e"]).unwrap_err();
    assert_eq!(count(), 15, "one question tries it");
    ask(&service, &["d"]).unwrap_err();
    assert_eq!(count(), 15, "it is open again");
    for _ in 0..5 {
        clock.advance_us(OPEN_FOR_US);
        ask(&service, &["d", "e"]).unwrap_err();
    }
    clock.advance_us(OPEN_FOR_US);
    assert_eq!(ask(&service, &["d", "e"]).unwrap(), [body("\"again\""), body("\"again\"")]);
    assert_eq!(count(), 22);
}

#[test]
fn a_service_that_is_silent_is_waited_for_no_longer_than_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    let clock = Arc::new(ManualClock::at(0));
    let options = ServiceOptions { timeout_us: 50_000, tries: 2, ..ServiceOptions::default() };
    let error = ask(&service(&address, &clock, options), &["a", "b"]).unwrap_err().to_string();
    assert!(error.contains("no answer within 50 ms"), "{error}");
    // Nor is it when the pipeline is to stand still.
    let wanted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&wanted);
    let service = HttpService::new(
        address,
        ServiceOptions { timeout_us: 60_000_000, ..ServiceOptions::default() },
        clock,
        move || told.swap(true, Ordering::SeqCst),
    );
    let error = ask(&service.unwrap(), &["a"]).unwrap_err().to_string();
    assert!(wanted.load(Ordering::SeqCst) && error.contains("not waited for"), "{error}");
}

#[test]
fn the_cache_has_a_bound() {
    let (address, asked) = server(|key, _| (200, format!("\"{}\"", key.repeat(100))));
    let clock = Arc::new(ManualClock::at(0));
    let bytes = ENTRY_BYTES + 1 + 102;
    let options =
        ServiceOptions { cache_bytes: 3 * bytes as u64, concurrency: 1, tries: 1, ..ServiceOptions::default() };
    let service = service(&address, &clock, options);
    ask(&service, &["a", "b", "c", "d"]).unwrap();
    ask(&service, &["b", "c", "d"]).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    ask(&service, &["a"]).unwrap();
    ask(&service, &["c", "d"]).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 5, "the oldest went");
    assert_eq!(service.state.lock().cache.bytes, 3 * bytes);
    clock.advance_us(i64::MAX / 2);
    ask(&service, &["x"]).unwrap();
    assert_eq!(service.state.lock().cache.bytes, bytes);
}
