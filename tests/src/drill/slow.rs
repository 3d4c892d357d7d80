//! A slow HTTP server: `GET /MS` is answered after so many milliseconds. It listens on 127.0.0.1 and ends with the drill.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

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
