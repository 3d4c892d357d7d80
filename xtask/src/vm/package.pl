# A master with a worker of another user, which waits for work on a socket. The worker leaves its pid in a file.
use strict;
use warnings;
use Socket;

if ($ARGV[0] eq 'master') {
    my $child = fork() // die "fork: $!";
    exec 'setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'perl', $0, 'worker' unless $child;
    waitpid $child, 0;
} else {
    socket my $listening, PF_INET, SOCK_STREAM, 0 or die "socket: $!";
    bind $listening, sockaddr_in(0, INADDR_LOOPBACK) or die "bind: $!";
    listen $listening, 1 or die "listen: $!";
    open my $file, '>', 'worker.pid' or die "worker.pid: $!";
    print $file $$;
    close $file;
    accept(my $work, $listening);
}
