<?php
// The jobs of the drills as Laravel queues them, and the command that does so.

use Illuminate\Bus\Queueable;
use Illuminate\Console\Command;
use Illuminate\Contracts\Queue\ShouldQueue;

final class Job implements ShouldQueue
{
    use Queueable;

    public function __construct(public int $id, public string $what, public int $ms)
    {
    }

    public function handle()
    {
        Work::run($this->id, $this->what, $this->ms, fn ($name) => app('redis')->connection($name));
    }
}

/** Queues a job for each line of its input: `ID KIND MS`. */
final class Push extends Command
{
    protected $signature = 'drill:push';

    public function handle()
    {
        while (($line = fgets(STDIN)) !== false) {
            [$id, $kind, $ms] = explode(' ', trim($line));
            [$what, $ms] = self::variant((int) $id, $kind, (int) $ms);
            app('queue')->connection()->push(new Job((int) $id, $what, $ms));
        }
    }

    /** Laravel's own ways to wait, beside those that every framework has. */
    private static function variant($id, $kind, $ms)
    {
        return match (true) {
            $kind === 'sleep' && $ms > 2000 => ['sleep', 12000],
            $kind === 'sleep' && $id % 3 === 0 => ['naps', 2000],
            $kind === 'sleep' && $id % 3 === 1 => ['renew', 3000],
            $kind === 'lock' && $id % 2 === 0 => ['other-lock', $ms],
            default => [$kind, $ms],
        };
    }
}

function app($name)
{
    return Illuminate\Container\Container::getInstance()->make($name);
}
