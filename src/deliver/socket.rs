//! A TCP connection of the budget.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection as Connects};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::connection_budget::Connection;

/// A socket that counts in the budget until it is closed. If the budget needs its place, the peer seems to have closed it:
/// that is how the pool of hyper-util, which closes nothing on request, comes to drop it.
#[derive(Debug)]
pub(super) struct Socket {
    // Dropped in this order: the place is free after the file.
    io: TokioIo<TcpStream>,
    connection: Connection,
}

impl Socket {
    pub(super) fn new(io: TokioIo<TcpStream>, connection: Connection) -> Self {
        Self { io, connection }
    }

    #[cfg(test)]
    pub(super) fn tcp(&self) -> &TcpStream {
        self.io.inner()
    }

    /// A farewell to a peer that reads nothing would keep the socket open.
    fn check_open(&self) -> io::Result<()> {
        match self.connection.is_closing() {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.poll_closing(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open()?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open()?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

impl Connects for Socket {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}
