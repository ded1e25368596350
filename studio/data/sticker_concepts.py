"""What the stickers show: the curated concepts, the four styles and the names that are never used.

A concept is an Unicode emoji label (the key that joins the vendors' graphics), the plain name used in captions, and
the group word ("an animal") that personalization methods use as the class of an unseen subject.
"""

STYLES = ("3d", "flat", "cartoon", "glossy")
"""Style words of the captions: Fluent 3D, Fluent flat, Twemoji, Noto."""

COLORS = {
    "red": (214, 48, 48),
    "orange": (240, 140, 40),
    "yellow": (250, 215, 60),
    "green": (60, 170, 80),
    "teal": (30, 160, 160),
    "blue": (50, 110, 220),
    "purple": (130, 70, 190),
    "pink": (250, 150, 190),
    "brown": (130, 85, 50),
    "gray": (145, 145, 150),
    "black": (25, 25, 28),
    "white": (250, 250, 250),
}
"""Named background colors, 8-bit RGB."""

HELD_OUT = tuple(
    """raccoon;unicorn;zebra;llama;hippo;hamster;hedgehog;koala;sloth;skunk;rooster;flamingo;peacock;dragon;sauropod;
blowfish;lobster;scorpion;croissant;taco;cupcake;teapot;tractor;helicopter;locomotive;kick scooter;snowman;teddy bear;
robot;pinata;backpack;sneaker;camera;microscope;castle;circus tent""".replace("\n", "").split(";")
)
"""Subjects kept for judging personalization: no sprite, caption or label of pre-training may name them."""

HELD_OUT_LABELS = frozenset(
    """raccoon;unicorn;zebra;llama;hippopotamus;hamster;hedgehog;koala;sloth;skunk;rooster;chicken;flamingo;peacock;
dragon;dragon face;sauropod;blowfish;lobster;scorpion;croissant;taco;cupcake;teapot;tractor;helicopter;locomotive;
kick scooter;snowman;snowman without snow;teddy bear;robot;piñata;backpack;running shoe;man\u2019s shoe;camera;
camera with flash;movie camera;video camera;film projector;microscope;castle;Japanese castle;circus tent""".replace(
        "\n", ""
    ).split(";")
)
"""The same subjects, with their near twins, as emoji labels."""

FLAGSHIP = tuple(
    """fox;panda;lion;penguin;frog;cat;dog;pig;elephant;rabbit;monkey;owl;butterfly;ladybug;octopus;turtle;whale;crab;
apple;banana;strawberry;watermelon;hamburger;pizza;doughnut;ice cream;carrot;pineapple;car;airplane;rocket;sailboat;
bus;cactus;sunflower;mushroom;crown;guitar;balloon;gift""".replace("\n", "").split(";")
)
"""The first concepts a small model learns: easy to name, spread over the groups. They come first in every list."""

_GROUPS = {
    "animal": """fox;panda;lion;penguin;frog;cat face=cat;dog face=dog;pig face=pig;elephant;rabbit face=rabbit;
monkey face=monkey;owl;butterfly;lady beetle=ladybug;octopus;turtle;spouting whale=whale;crab;gorilla;orangutan;poodle;
wolf;tiger face=tiger;leopard;horse face=horse;moose;donkey;deer;bison;cow face=cow;boar;ram;ewe=sheep;goat;
two-hump camel=camel;giraffe;mammoth;rhinoceros;mouse face=mouse;chipmunk;beaver;bat;bear;polar bear;otter;kangaroo;
badger;turkey;hatching chick;baby chick=chick;bird;dove;eagle;duck;swan;dodo;parrot;crocodile;lizard;snake;
T-Rex=dinosaur;dolphin;seal;fish;tropical fish;shark;jellyfish;shrimp;squid;snail;bug=caterpillar;ant;honeybee=bee;
beetle;cricket=grasshopper;spider;mosquito;worm""",
    "food": """red apple=apple;banana;strawberry;watermelon;hamburger;pizza;doughnut;ice cream;carrot;pineapple;grapes;
melon;tangerine=orange fruit;lemon;mango;green apple;pear;peach;cherries;blueberries;kiwi fruit=kiwi;tomato;olive;coconut;
avocado;eggplant;potato;ear of corn=corn;hot pepper=chili pepper;bell pepper;cucumber;leafy green=lettuce;broccoli;garlic;
onion;peanuts;chestnut;bread;baguette bread=baguette;pretzel;bagel;pancakes;waffle;cheese wedge=cheese;
meat on bone;poultry leg=drumstick;cut of meat=steak;bacon;french fries=fries;hot dog;sandwich;burrito;egg;
cooking=fried egg;green salad=salad;popcorn;butter;rice ball;steaming bowl=noodle soup;spaghetti;sushi;
fried shrimp;dango;dumpling;fortune cookie;soft ice cream=soft serve;shaved ice;cookie;birthday cake;shortcake=cake;pie;
chocolate bar;candy;lollipop;custard=pudding;honey pot;glass of milk=milk;hot beverage=coffee;wine glass;
cocktail glass=cocktail;beer mug=beer;cup with straw=soda;bubble tea""",
    "plant": """cactus;sunflower;mushroom;bouquet;cherry blossom;rose;hibiscus;tulip;hyacinth;seedling;potted plant;
evergreen tree=pine tree;deciduous tree=tree;palm tree;four leaf clover=clover;maple leaf;lotus;Christmas tree""",
    "vehicle": """automobile=car;airplane;rocket;sailboat;bus;bicycle;bullet train;tram;ambulance;fire engine=fire truck;
police car;taxi;sport utility vehicle=van;pickup truck;delivery truck=truck;racing car=race car;motorcycle;
auto rickshaw=rickshaw;canoe;speedboat;ship;flying saucer;skateboard;roller skate;sled;satellite""",
    "toy": """balloon;yo-yo;kite;water pistol;crystal ball;magic wand;joystick;game die=die;
puzzle piece;nesting dolls;soccer ball;baseball;basketball;volleyball;american football;tennis=tennis ball;
bowling;ping pong=ping pong paddle;badminton;boxing glove;bullseye=target;jack-o-lantern=pumpkin;pool 8 ball""",
    "clothing": """crown;glasses;sunglasses;goggles;necktie;t-shirt;jeans;scarf;gloves;coat;socks;dress;purse;handbag;
hiking boot;high-heeled shoe;top hat;graduation cap;billed cap=cap;ring;woman\u2019s hat=sun hat;ice skate""",
    "instrument": """guitar;saxophone;trumpet;accordion;violin;banjo;drum;maracas;bell;musical keyboard=piano;megaphone;
headphone=headphones;radio""",
    "tool": """hammer;axe;pick=pickaxe;dagger;carpentry saw=saw;wrench;screwdriver;gear;magnet;ladder;toolbox;scissors;
pencil;paintbrush;crayon;pushpin;syringe;broom;bucket;toothbrush;flashlight;telescope;test tube;
fire extinguisher;key;locked=padlock;compass;shield;kitchen knife=knife;spoon""",
    "object": """wrapped gift=gift;umbrella;gem stone=diamond;trophy;ribbon=bow;alarm clock;watch;hourglass not done=hourglass;
telephone;television;laptop;battery;light bulb;candle;red paper lantern=lantern;open book=book;money bag;coin;envelope;
package=box;briefcase;chair;bed;toilet;door;bomb;soap;basket;anchor;luggage=suitcase;fountain;house;tent;
artist palette=palette;yarn;globe showing Americas=globe;fire;droplet=water drop;star;sun;crescent moon=moon;
ringed planet=planet;cloud;rainbow;snowflake;red heart=heart;volcano;moai=stone head;roll of paper=toilet paper""",
    "face": """slightly smiling face=smiley;skull;ghost;alien;clown face=clown;ogre;goblin;pile of poo=poo;
alien monster=space invader""",
}


def concepts() -> list[tuple[str, str, str]]:
    """All concepts as (emoji label, plain name, group word), the flagship ones first, in a fixed order."""
    table = []
    for group, text in _GROUPS.items():
        for entry in text.replace("\n", "").split(";"):
            label, _, name = entry.strip().partition("=")
            table.append((label, name or label, group))
    rank = {name: place for place, name in enumerate(FLAGSHIP)}
    return sorted(table, key=lambda row: rank.get(row[1], len(rank)))
