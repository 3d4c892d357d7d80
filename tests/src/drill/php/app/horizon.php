<?php
// The shape of Laravel Horizon (v5, its SupervisorCommandString, WorkerCommandString, Supervisor and MasterSupervisor):
// the same command lines, exec'd through the shell by Symfony's Process with pipes for their output; master and
// supervisor loop on sleep(1), start anew whoever is gone, and the supervisor leaves when getppid() says 1. The workers
// are the real queue worker. Left out is what does not show in a process tree: scaling, metrics, the dashboard.

use Illuminate\Console\Command;
use Illuminate\Queue\Console\WorkCommand;
use Symfony\Component\Process\Process;

final class HorizonWork extends WorkCommand
{
    public function __construct($worker, $cache)
    {
        $this->signature = str_replace('queue:work', 'horizon:work', $this->signature).' {--supervisor= : Its supervisor}';
        parent::__construct($worker, $cache);
    }

    public static function getDefaultName(): ?string
    {
        return 'horizon:work';
    }
}

/** Keeps a number of processes of one command line going until it is told to stop. */
trait KeepsProcesses
{
    private array $processes = [];
    private bool $stopping = false;

    private function listen()
    {
        pcntl_async_signals(true);
        foreach ([SIGTERM, SIGINT, SIGQUIT] as $signal) {
            pcntl_signal($signal, fn () => $this->stopping = true);
        }
    }

    private function keep(int $number, string $command)
    {
        $this->processes = array_filter($this->processes, fn ($process) => $process->isRunning());
        while (! $this->stopping && count($this->processes) < $number) {
            $process = Process::fromShellCommandline("exec $command", __DIR__)->setTimeout(null);
            $process->start(fn () => null);
            $this->processes[] = $process;
        }
        foreach ($this->processes as $process) {
            // Reads what they wrote, so that the pipes do not fill.
            $process->getIncrementalOutput();
            $process->clearOutput()->clearErrorOutput();
        }
    }

    private function terminate()
    {
        $this->stopping = true;
        foreach ($this->processes as $process) {
            $process->isRunning() && $process->signal(SIGTERM);
        }
        while (array_filter($this->processes, fn ($process) => $process->isRunning())) {
            sleep(1);
        }
    }

    private static function php()
    {
        return PHP_BINARY.' '.__DIR__.'/artisan';
    }

    private static function work_options($sleep)
    {
        return "--backoff=0 --max-time=0 --max-jobs=0 --memory=128 --queue=\"default\" --sleep=$sleep --timeout=60 --tries=0";
    }
}

final class Horizon extends Command
{
    use KeepsProcesses;

    protected $signature = 'horizon {--sleep=1 : Between polls of the workers} {--processes=3 : Workers}';

    public function handle()
    {
        $this->listen();
        $name = gethostname().'-'.bin2hex(random_bytes(2)).':supervisor-1';
        [$sleep, $processes] = [$this->option('sleep'), $this->option('processes')];
        $command = self::php()." horizon:supervisor $name redis --workers-name=default --balance=off"
            ." --max-processes=$processes --min-processes=1 --nice=0 --balance-cooldown=3 --balance-max-shift=1"
            .' --parent-id='.getmypid().' --auto-scaling-strategy=time '.self::work_options($sleep);
        while (! $this->stopping) {
            $this->keep(1, $command);
            sleep(1);
        }
        $this->terminate();
    }
}

final class HorizonSupervisor extends Command
{
    use KeepsProcesses;

    protected $signature = 'horizon:supervisor {name} {connection} {--workers-name=} {--balance=} {--max-processes=}'
        .' {--min-processes=} {--nice=} {--balance-cooldown=} {--balance-max-shift=} {--parent-id=}'
        .' {--auto-scaling-strategy=} {--backoff=} {--max-time=} {--max-jobs=} {--memory=} {--queue=} {--sleep=}'
        .' {--timeout=} {--tries=}';

    public function handle()
    {
        $this->listen();
        $command = self::php().' horizon:work redis --name=default --supervisor='.$this->argument('name').' '
            .self::work_options($this->option('sleep'));
        while (! $this->stopping) {
            // Not so below a subreaper: it adopts, and the subtree stays.
            if ($this->option('parent-id') > 1 && posix_getppid() <= 1) {
                break;
            }
            $this->keep((int) $this->option('max-processes'), $command);
            sleep(1);
        }
        $this->terminate();
    }
}
