<?php
// What jobs do, in a queue and in a request. Each says in the ledger when it begins and when it has really ended: a sleep
// that was cut short, an answer that did not come and a child that was killed are not an end.

final class Work
{
    /** @param callable $redis gives a connection to Redis by name: `default` is the queue's own, if there is a queue. */
    public static function run(int $id, string $what, int $ms, callable $redis): bool
    {
        self::say('started', $id);
        $begin = hrtime(true);
        $seconds = $ms / 1000;
        $whole = match ($what) {
            'cpu' => self::spin($seconds),
            'sleep' => self::sleep((int) ceil($seconds)),
            // Sleeps that are each as long as the worker's own between two polls.
            'naps' => self::sleep(1) && self::sleep(1),
            // The same with a word to the queue's own Redis between, as who renews a lock does.
            'renew' => self::sleep(1) && self::renew($redis) && self::sleep(1) && self::renew($redis) && self::sleep(1),
            'http' => file_get_contents('http://127.0.0.1:'.getenv('DRILL_HTTP')."/$ms") === "late\n",
            'db' => self::query($seconds),
            'child' => exec(getenv('DRILL_CHILD')." $seconds && echo done") === 'done',
            // BLPOP of a list to which nobody pushes: how one waits for a lock on Redis. Over the queue's own connection it is
            // the very socket on which the worker waits for jobs.
            'lock' => empty($redis('default')->blpop(['nobody-frees-it'], (int) ceil($seconds))),
            'other-lock' => empty($redis('locks')->blpop(['nobody-frees-it'], (int) ceil($seconds))),
        };
        $whole = $whole && (hrtime(true) - $begin) / 1e9 > $seconds - 0.02;
        self::say($whole ? 'ended' : 'cut', $id);
        return $whole;
    }

    private static function spin($seconds)
    {
        for ($begin = hrtime(true); (hrtime(true) - $begin) / 1e9 < $seconds;) {
            md5('busy');
        }
        return true;
    }

    /** sleep(3) gives what was left of it when a signal ended it. */
    private static function sleep($seconds)
    {
        return sleep($seconds) === 0;
    }

    private static function renew($redis)
    {
        return $redis('default')->set('lock', 'mine') !== false;
    }

    private static function query($seconds)
    {
        $where = 'host=127.0.0.1 user=postgres dbname=postgres sslmode=disable port='.getenv('DRILL_DB');
        return pg_query(pg_connect($where, PGSQL_CONNECT_FORCE_NEW), "select pg_sleep($seconds)") !== false;
    }

    /** One line, whole: O_APPEND and one write. */
    private static function say($event, $id)
    {
        $line = sprintf("%s %d %d %d %d\n", $event, $id, getmypid(), posix_getppid(), hrtime(true));
        file_put_contents(getenv('DRILL_LEDGER'), $line, FILE_APPEND);
    }
}
