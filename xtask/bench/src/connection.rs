//! A hand-written HTTP/1.1 client connection, much cheaper than what it measures.
//!
//! Understands what our servers send: a head, then a body with a length or in chunks, kept alive.
//! Not a general client: no redirects, no compression, no pipelining.
//! Invariant: `exchange` returns after the last byte of the body, so the next request may follow;
//! after an error the connection must not be used again.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Enough for a head and a small answer in one read; grows for more.
const BUFFER_BYTES: usize = 32 * 1024;

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are read but not yet used: `from..to`.
    from: usize,
    to: usize,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects, with Nagle's algorithm off.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], from: 0, to: 0 })
    }

    /// Sends a request and reads the answer; the body's bytes go to `take` as they arrive.
    /// Gives the status.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is not HTTP as we know it.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let head_end = loop {
            if let Some(end) = find(self.unused(), b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let head = self.unused().get(..head_end).unwrap_or_default();
        let (status, framing) = parse_head(head)?;
        self.from += head_end;
        match framing {
            Framing::Length(length) => self.pass(length, &mut take).await?,
            Framing::Chunked => self.pass_chunks(&mut take).await?,
        }
        Ok(status)
    }

    fn unused(&self) -> &[u8] {
        self.buffer.get(self.from..self.to).unwrap_or_default()
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if self.to == self.buffer.len() {
                self.buffer.resize(self.to * 2, 0);
            }
        }
        let free = self.buffer.get_mut(self.to..).unwrap_or_default();
        let count = self.stream.read(free).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.to += count;
        Ok(())
    }

    /// Hands over the next `length` bytes.
    async fn pass(&mut self, mut length: usize, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            if self.from == self.to {
                self.read_more().await?;
            }
            let bytes = self.unused();
            let bytes = bytes.get(..length).unwrap_or(bytes);
            take(bytes);
            length -= bytes.len();
            self.from += bytes.len();
        }
        Ok(())
    }

    async fn pass_chunks(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let end = self.line_end().await?;
            let size = self.unused().get(..end).and_then(parse_chunk_size);
            let size = size.ok_or_else(|| unknown("a chunk without a size"))?;
            self.from += end + 2;
            self.pass(size, take).await?;
            if self.line_end().await? != 0 {
                return Err(unknown("a chunk longer than its size, or trailers"));
            }
            self.from += 2;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn line_end(&mut self) -> io::Result<usize> {
        loop {
            if let Some(end) = find(self.unused(), b"\r\n") {
                return Ok(end);
            }
            self.read_more().await?;
        }
    }
}

fn unknown(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Where `needle` starts.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> io::Result<(u16, Framing)> {
    let head = str::from_utf8(head).map_err(|_error| unknown("a head that is not text"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| unknown("no status line"))?;
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_error| unknown("a length that is no number"))?;
            return Ok((status, Framing::Length(length)));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked" {
            return Ok((status, Framing::Chunked));
        }
    }
    Err(unknown("a body without a length"))
}

fn parse_chunk_size(line: &[u8]) -> Option<usize> {
    let digits = str::from_utf8(line).ok()?.split(';').next()?;
    usize::from_str_radix(digits.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_its_body_ends() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parse_head(head).unwrap(), (200, Framing::Length(12)));
        let head = b"HTTP/1.1 429 x\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(parse_head(head).unwrap(), (429, Framing::Chunked));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn chunk_sizes_are_hexadecimal_and_may_have_extensions() {
        assert_eq!(parse_chunk_size(b"1a;x=y"), Some(26));
        assert_eq!(parse_chunk_size(b"zz"), None);
    }
}
