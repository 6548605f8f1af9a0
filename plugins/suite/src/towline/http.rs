//! A very small HTTP/1.1 client over a Unix socket: one request a connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// More than any answer of the daemon, in bytes.
const LARGEST: u64 = 16 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, decoded.
    pub body: Vec<u8>,
}

/// Connects to the socket, to see whether anybody listens.
///
/// # Errors
/// When nobody does.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket)
}

/// Sends one request and reads the answer.
///
/// # Errors
/// When nobody listens, the answer does not come in time, or it is no HTTP.
pub fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<Response> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: towlined\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "answered no HTTP/1.1"))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = find(answer, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let rest = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()?
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        chunks(rest)?
    } else if let Some(length) = header("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else {
        rest.to_vec()
    };
    Some(Response { status, body })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line])
            .ok()?
            .split(';')
            .next()?
            .trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let data = rest.get(line + 2..)?;
        body.extend_from_slice(data.get(..size)?);
        rest = data.get(size + 2..)?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_body_are_read() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbodyxx";
        assert_eq!(
            parse(plain),
            Some(Response {
                status: 200,
                body: b"body".to_vec()
            })
        );
        let chunked =
            b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n";
        assert_eq!(
            parse(chunked),
            Some(Response {
                status: 503,
                body: b"body".to_vec()
            })
        );
        let none = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(
            parse(none),
            Some(Response {
                status: 204,
                body: Vec::new()
            })
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody"),
            None
        );
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(tail: Vec<u8>, chunked: bool) {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            if chunked {
                answer.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            }
            answer.extend_from_slice(&tail);
            let _ = parse(&answer);
        }
    }
}
