//! HTTP as far as drills need it: a slow server, and a client.
//!
//! The server: `GET /MS` is answered after so many milliseconds. It listens on 127.0.0.1 and ends with
//! the drill.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};

/// Starts it; gives its port. Its threads end with this process.
pub(super) fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&connection));
        }
    });
    port
}

/// One request. A client that went away, or says something else, is not answered.
fn answer(connection: &TcpStream) -> Option<()> {
    let mut lines = BufReader::new(connection).lines();
    let request = lines.next()?.ok()?;
    lines.find(|line| line.as_ref().is_ok_and(String::is_empty))?.ok()?;
    let ms = request.strip_prefix("GET /")?.split(' ').next()?.parse().ok()?;
    std::thread::sleep(Duration::from_millis(ms));
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlate\n";
    let mut connection = connection;
    connection.write_all(reply.as_bytes()).ok()
}

/// How long a request may take: longer than any job and the start of a master before it.
const ANSWER: Duration = Duration::from_secs(15);

/// Requests a path on 127.0.0.1 and waits for the end of the answer.
///
/// # Errors
/// When there is none, or it is not 200.
pub fn get(port: u16, path: &str) -> Result<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(ANSWER))?;
    connection
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    ensure!(status == b"200", "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
