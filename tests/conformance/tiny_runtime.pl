# A plugin's runtime in another language than the host's, written from docs/wire.md alone.
#
#   perl tiny_runtime.pl IN OUT [OLDEST NEWEST] [stubborn]
#
# IN and OUT are the numbers of the descriptors. It confines nothing: only tests may run it.
# OLDEST and NEWEST are the versions that it says it speaks; a stubborn one does not care whether
# the host speaks any of them.

use strict;
use warnings;

my ($in_fd, $out_fd, $oldest, $newest, $stubborn) = (@ARGV, (1, 1, '')[ @ARGV - 2 .. 2 ]);
open my $in,  '<&=', $in_fd  or die "in: $!";
open my $out, '>&=', $out_fd or die "out: $!";
$SIG{$_} = 'IGNORE' for qw(USR1 USR2 INT);
binmode $in;
binmode $out;

my %NUMBER = (
    Confine => 1,  Confined => 2,  Load => 3,     Ready => 4,    Failed => 5,
    Call    => 6,  Result   => 7,  Failure => 8,  Deliver => 9,  Handled => 10,
    Publish => 11, Stop     => 12, Stopped => 13, Ask => 14,     Answer => 15,
    Cancel  => 16, Yield   => 17, YieldCredit => 18, DeliverMany => 26, HandledSome => 27,
);
my %NAME = reverse %NUMBER;

# -- values: [type, value]; text and bytes stay bytes, a map is a list of keys and values in turn --

my %FIXED = (
    0xCA => [ float => 'f>', 4 ], 0xCB => [ float => 'd>', 8 ],
    0xCC => [ int   => 'C',  1 ], 0xCD => [ int   => 'n',  2 ],
    0xCE => [ int   => 'N',  4 ], 0xCF => [ int   => 'Q>', 8 ],
    0xD0 => [ int   => 'c',  1 ], 0xD1 => [ int   => 's>', 2 ],
    0xD2 => [ int   => 'l>', 4 ], 0xD3 => [ int   => 'q>', 8 ],
);
my %SIZED = (
    0xC4 => [ bin  => 'C', 1 ], 0xC5 => [ bin  => 'n', 2 ], 0xC6 => [ bin => 'N', 4 ],
    0xD9 => [ str  => 'C', 1 ], 0xDA => [ str  => 'n', 2 ], 0xDB => [ str => 'N', 4 ],
    0xDC => [ list => 'n', 2 ], 0xDD => [ list => 'N', 4 ],
    0xDE => [ map  => 'n', 2 ], 0xDF => [ map  => 'N', 4 ],
);

sub decode {
    my ($data) = @_;
    my $at = 0;
    my $value = decode_at(\$data, \$at);
    die "bytes after the value" if $at != length $data;
    return $value;
}

sub take {
    my ($data, $at, $count) = @_;
    die "truncated value" if $$at + $count > length $$data;
    $$at += $count;
    return substr $$data, $$at - $count, $count;
}

sub decode_at {
    my ($data, $at) = @_;
    my $first = ord take($data, $at, 1);
    return [ int => $first ] if $first < 0x80;
    return [ int => $first - 0x100 ] if $first >= 0xE0;
    return body($data, $at, 'map',  $first & 0x0F) if $first < 0x90;
    return body($data, $at, 'list', $first & 0x0F) if $first < 0xA0;
    return body($data, $at, 'str',  $first & 0x1F) if $first < 0xC0;
    return ['nil'] if $first == 0xC0;
    return [ bool => $first & 1 ] if $first == 0xC2 || $first == 0xC3;
    if (my $fixed = $FIXED{$first}) {
        my ($type, $template, $size) = @$fixed;
        return [ $type => unpack $template, take($data, $at, $size) ];
    }
    my ($type, $template, $size) = @{ $SIZED{$first} or die "a type that the wire does not have" };
    return body($data, $at, $type, unpack $template, take($data, $at, $size));
}

sub body {
    my ($data, $at, $type, $count) = @_;
    return [ $type => take($data, $at, $count) ] if $type eq 'str' || $type eq 'bin';
    $count *= 2 if $type eq 'map';
    return [ $type => [ map { decode_at($data, $at) } 1 .. $count ] ];
}

sub encode {
    my ($type, $value) = @{ $_[0] };
    return "\xC0" if $type eq 'nil';
    return $value ? "\xC3" : "\xC2" if $type eq 'bool';
    return pack 'Cd>', 0xCB, $value if $type eq 'float';
    return pack 'Cq>', 0xD3, $value if $type eq 'int' && $value < 0;
    return pack 'CQ>', 0xCF, $value if $type eq 'int';
    return pack('CN', 0xDB, length $value) . $value if $type eq 'str';
    return pack('CN', 0xC6, length $value) . $value if $type eq 'bin';
    my $items = join '', map { encode($_) } @$value;
    return pack('CN', 0xDD, scalar @$value) . $items if $type eq 'list';
    return pack('CN', 0xDF, @$value / 2) . $items;
}

sub nil  { return ['nil'] }
sub bool { return [ bool => $_[0] ] }
sub int_ { return [ int => $_[0] ] }
sub text { return [ str => $_[0] ] }
sub list { return [ list => [@_] ] }

sub object {
    my @pairs = @_;
    return [ map => [ map { $_ % 2 ? $pairs[$_] : text($pairs[$_]) } 0 .. $#pairs ] ];
}

sub member {    # What is not asked for by name is ignored: a later version may have put it there.
    my ($object, $key) = @_;
    my @items = @{ $object->[1] };
    while (my ($name, $value) = splice @items, 0, 2) {
        return $value if $name->[1] eq $key;
    }
    return nil();
}

# -- frames and messages ----------------------------------------------------------------------

sub read_exactly {
    my ($count) = @_;
    my $data = '';
    while (length $data < $count) {
        my $got = sysread $in, $data, $count - length $data, length $data;
        die "read: $!" unless defined $got;
        exit 0 unless $got;    # the host is gone
    }
    return $data;
}

sub receive {
    my ($header_size, $payload_size) = unpack 'NN', read_exactly(8);
    my ($number, @fields) = map { $_->[1] } @{ decode(read_exactly($header_size))->[1] };
    my $payload = read_exactly($payload_size);
    return { name => $NAME{$number}, fields => \@fields, payload => $payload };
}

sub write_all {
    my ($data) = @_;
    while (length $data) {
        my $written = syswrite $out, $data;
        die "write: $!" unless defined $written;
        $data = substr $data, $written;
    }
    return;
}

sub send_message {
    my ($name, $payload, @fields) = @_;
    my $header = encode(list(int_($NUMBER{$name} // $name), @fields));
    my $body = $payload ? encode($payload) : '';
    write_all(pack('NN', length $header, length $body) . $header . $body);
    return;
}

# -- the session ------------------------------------------------------------------------------

my @waiting;
my $asked = 0;
my $last_event = nil();

sub next_message { return @waiting ? shift @waiting : receive() }

sub ask {
    my ($service, $arguments) = @_;
    my $id = ++$asked;
    send_message('Ask', list($arguments, object()), int_($id), text($service), int_(0));
    while (1) {
        my $message = receive();
        if ($message->{name} eq 'Answer' && $message->{fields}[0] == $id) {
            return ($message->{fields}[1], decode($message->{payload}));
        }
        push @waiting, $message;
    }
}

sub fail {
    my ($id, $code, $type, $message) = @_;
    my $told = object(
        type => text($type), message => text($message), traceback => text(''),
        place => text('tiny_runtime.pl'), invented_later => int_(1),
    );
    send_message('Failure', $told, int_($id), text($code));
    return;
}

my %OPERATION = (
    echo => sub { my ($id, @arguments) = @_; return $arguments[0] // nil() },
    count => sub { my ($id, @arguments) = @_; return int_(scalar @arguments) },
    announce => sub {
        my ($id, $type, $data) = @_;
        send_message('Publish', $data, $type);
        return nil();
    },
    last_event => sub { return $last_event },
    use_service => sub {
        my ($id, $service, @arguments) = @_;
        my ($ok, $value) = ask($service->[1], list(@arguments));
        return $value if $ok;
        fail($id, 'exception', 'ServiceError', member($value, 'message')->[1]);
        return;
    },
    fails => sub { fail($_[0], 'exception', 'Trouble', 'as it was asked to'); return },

    # What a plugin must not do.
    answer_twice => sub { send_message('Result', nil(), int_($_[0])); return nil() },
    answer_another => sub { send_message('Result', nil(), int_($_[0] + 1000)); return },
    handle_a_call => sub { send_message('Handled', nil(), int_($_[0]), bool(1)); return },
    be_ready_again => sub { send_message('Ready', object()); return },
    speak_for_the_host => sub { send_message('Stop'); return },
    invent_a_message => sub { send_message(99, nil()); return },
    add_a_field => sub { send_message('Result', nil(), int_($_[0]), nil()); return },
    ask_twice_the_same => sub {
        send_message('Ask', list(list(), object()), int_(1), text('greet'), int_(0)) for 1 .. 2;
        return;
    },
    three => sub {    # few enough for the credit that every stream begins with
        send_message('Yield', int_($_), int_($_[0])) for 1 .. 3;
        send_message('Result', nil(), int_($_[0]));
        return;
    },
    ask_for_more => sub { send_message('Ask', nil(), int_(1), text('not.granted'), int_(0)); return },
    publish_more => sub { send_message('Publish', nil(), text('data_processed')); return },
    same_key_twice => sub {
        send_message('Result', object(a => nil(), a => nil()), int_($_[0]));
        return;
    },
    huge_header => sub { write_all(pack 'NN', 1025, 0); return },
    huge_payload => sub { write_all(pack 'NN', 1, 8 * 1024 * 1024 + 1); return },
);

sub call {
    my ($message) = @_;
    my ($id, $name) = @{ $message->{fields} };
    my $operation = $OPERATION{$name};
    return fail($id, 'no-such-operation', '', "there is no operation $name") unless $operation;
    my ($arguments) = @{ decode($message->{payload})->[1] };
    my $value = $operation->($id, @{ $arguments->[1] });
    send_message('Result', $value, int_($id)) if $value;
    return;
}

sub confine {
    my ($message) = @_;
    my ($host_oldest, $host_newest) = @{ $message->{fields} };
    my $common = $host_newest >= $oldest && $newest >= $host_oldest;
    if ($common || $stubborn) {
        return send_message('Confined', object(), int_($oldest), int_($newest));
    }
    my $told = object(
        message => text('no common version'), invented_later => nil(),
        versions => list(int_($oldest), int_($newest)),
    );
    send_message('Failed', $told, text('protocol-version'));
    exit 1;
}

sub load {
    my ($message) = @_;
    my $order = decode($message->{payload});
    my @operations = map { object(name => text($_), kind => text('operation')) } sort keys %OPERATION;
    my $ready = object(
        metadata => object(name => member($order, 'identity')),
        operations => list(@operations),
        handles => member($order, 'events'),
        kind => nil(),
        hooks => object(cleanup => bool(0), health_check => bool(0)),
        warnings => list(),
        invented_later => object(by => text('a newer runtime')),
    );
    return send_message('Ready', $ready);
}

while (1) {
    my $message = next_message();
    my $name = $message->{name};
    if    ($name eq 'Confine') { confine($message) }
    elsif ($name eq 'Load')    { load($message) }
    elsif ($name eq 'Call')    { call($message) }
    elsif ($name eq 'Deliver') {
        $last_event = member(decode($message->{payload}), 'data');
        my $report = object(errors => list(), invented_later => nil());
        send_message('Handled', $report, int_($message->{fields}[0]), bool(1));
    }
    elsif ($name eq 'DeliverMany') {
        $last_event = decode($message->{payload})->[1][-1][1][0];
        my ($number, $type, $events) = @{ $message->{fields} };
        send_message('HandledSome', nil(), int_($number), int_($events - 1), bool(1)) if $events > 1;
        send_message('Handled', object(errors => list()), int_($number), bool(1));
    }
    elsif ($name eq 'Stop') {
        send_message('Stopped', object(ok => bool(1), error => nil(), invented_later => nil()));
        last;
    }
}
